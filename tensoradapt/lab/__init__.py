"""The lab has what an experiment needs: data, tasks, metrics, runs, sweeps, analysis and the command line.

The core, which is every other folder, never imports it. Open runs/config.py first: what one run is.
"""

from typing import Any

from tensoradapt.sites.named_models import register
from tensoradapt.text import show_by


def _config(name: str) -> Any:
    from tensoradapt.lab.data.models import config

    return config(name)


register(_config)


def _html(of: Any) -> str:
    from tensoradapt.lab.notebook import html

    return html(of)


show_by(_html)
