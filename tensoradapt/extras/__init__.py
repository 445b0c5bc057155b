"""Extras are rooms that few need. Each file or folder here can be deleted; all else works without it.

``ROOMS`` says which names a room brings in by which door (``tensoradapt/doors.py``). The core and the lab import no
room by its name, so whoever adds one touches this folder alone.
"""

from collections.abc import Mapping

ROOMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "alignment": {"names": ("alignment",)},
    "answers": {"tasks": ("instruct", "preference")},
    "axolotl": {},
    "corda": {"starts": ("corda-ipm", "corda-kpm"), "rows": ("corda-ipm", "corda-kpm")},
    "eva": {"starts": ("eva",), "rows": ("eva",)},
    "factor_maps": {"factors": ("unilora", "nola"), "maps": ("unilora", "nola"), "rows": ("unilora", "nola")},
    "forgetting": {"measures": ("forgetting",)},
    "llama_factory": {},
    "lora_sb": {"starts": ("lora-sb",), "rows": ("lora-sb",)},
    "mica": {"starts": ("mica",), "rows": ("mica",)},
    "milora": {"starts": ("milora",), "rows": ("milora",)},
    "ms_swift": {},
    "olora": {"starts": ("olora",), "rows": ("olora",)},
    "orthonormal": {
        "names": ("orthonormal",),
        "rows": ("polar", "stella", "stella-diagonal"),
        "steps": ("landing", "retraction"),
    },
    "ray": {"executors": ("ray",)},
    "search": {"proposers": ("search",)},
    "slurm": {"executors": ("slurm",)},
    "trackers": {"trackers": ("tensorboard", "trackio", "wandb")},
}
