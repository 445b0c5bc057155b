"""Where a model of a name is looked for: names that no model has are refused at once, and the hub is asked once.

transformers asks the hub for every name that is no folder, and tries for half a minute where it does not answer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tensoradapt.errors import TensorAdaptError, closest, few
from tensoradapt.files import is_folder

# models that the hub names without an owner; no new ones are
FAMILIES = (
    "albert bert camembert ctrl distilbert distilgpt2 distilroberta gpt2 openai-gpt roberta t5 transfo-xl xlm xlnet"
)
OWNERLESS = re.compile(rf"({FAMILIES.replace(' ', '|')})(-.+)?")
PATIENCE = 5.0  # seconds that the hub has to answer
MOST_FOLDERS = 1000  # that are compared with a name


def on_hub(name: str) -> bool:
    """Return whether the hub may have a model of that name.

    >>> [on_hub(name) for name in ("google/vit-base", "bert-base-uncased", "my-model", "./runs/model", "a/b/c")]
    [True, True, False, False, False]
    """
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) or OWNERLESS.fullmatch(name))


def check_name(name: str, known: Sequence[str]) -> None:
    """Raise TensorAdaptError for a name that is not ``known``, no folder, and none that the hub has.

    The error names the closest of ``known`` and of the folders beside it.
    """
    if name in known or is_folder(name) or on_hub(name):
        return
    near = closest(name, [*known, *_beside(name)])
    hint = f'; did you mean "{near}"?' if near else "."
    raise TensorAdaptError(
        f"unknown model {name!r}: no such folder, and not built in{hint} Built in or of plug-ins: {few(known)}. "
        "A model of the hub is named with its owner, as in google/vit-base-patch16-224"
    )


def _beside(name: str) -> list[str]:
    """Return the folders in the place where a name would be, as they would be given."""
    parent = Path(name).parent
    try:
        found = [path for path in itertools.islice(parent.iterdir(), MOST_FOLDERS) if path.is_dir()]
    except (OSError, ValueError):
        return []
    return sorted(str(path) for path in found)


@lru_cache(maxsize=1)
def hub_fault() -> str:
    """Return why the hub is not asked: it is switched off, or it does not answer; "" where it answers."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # its stub has another place

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so the hub was not asked"
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # the session may be of another library, as configured
        return f"{constants.ENDPOINT} does not answer ({type(error).__name__}: {str(error)[:100]})"
    return ""
