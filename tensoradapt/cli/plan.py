"""`tensoradapt plan`."""

from __future__ import annotations

import argparse

from tensoradapt.cli.options import PROJECTIONS


def _plan_options(p: argparse.ArgumentParser) -> None:
    p.set_defaults(command=_plan)
    p.add_argument(
        "--model", default="all-minilm-l6-v2", help="as for frontier; only its config is read (default: %(default)s)"
    )
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--parameterization", metavar="NAME")
    which.add_argument("--published", metavar="NAME", help="a paper's adapter with its own layout, targets and scale")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--rank", type=int, metavar="R", help="not needed for families without one")
    how.add_argument("--budget", type=int, metavar="N")
    p.add_argument("--layout", nargs="+", metavar="LAYOUT")
    p.add_argument("--projections", nargs="+", metavar="P", help=PROJECTIONS)
    p.add_argument("--tasks", nargs="+", metavar="T", default=(), help="values of a layout's task mode")
    p.add_argument("--on-mismatch", help="split, crop or error (default: split; with --published: error)")


def _plan(args: argparse.Namespace) -> int:
    import tensoradapt as ta
    from tensoradapt.data import models

    config = models.config(args.model)
    sites = (
        ta.find_sites(config, args.projections[0] if len(args.projections) == 1 else args.projections)
        if args.projections
        else config
    )
    print(
        ta.plan(
            sites,
            args.layout,
            args.parameterization,
            args.rank,
            published=args.published,
            budget=args.budget,
            on_mismatch=args.on_mismatch,
            tasks=args.tasks,
        )
    )
    return 0
