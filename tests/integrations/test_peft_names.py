"""TensorConfig takes LoraConfig's names, a folder says what loads it, what trains is printed in PEFT's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tensoradapt as ta
from tensoradapt.integrations.peft import TensorConfig

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def test_loras_names_are_other_names_of_the_same_arguments(tmp_path: Path) -> None:
    given = TensorConfig(r=3, lora_alpha=8, lora_dropout=0.25, target_modules=["query"], modules_to_save=["classifier"])
    same = TensorConfig(rank=3, alpha=8, dropout=0.25, target_modules=["query"], modules_to_save=["classifier"])
    assert given == same and not {"r", "lora_alpha"} & given.to_dict().keys()
    given.save_pretrained(str(tmp_path))
    assert TensorConfig.from_pretrained(str(tmp_path)).to_dict() == same.to_dict()
    assert TensorConfig(r=3, rank=3).rank == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"r": 3, "rank": 4}, "r=3 and rank=4 were given, and both are rank"),
        ({"lora_alpha": 8, "alpha": 4.0}, "lora_alpha=8 and alpha=4.0 were given"),
        ({"use_dora": True}, "TensorConfig has no use_dora; give rule=.dora."),
        ({"use_rslora": True}, "no use_rslora; give method=.rslora. and paper=True"),
        ({"init_lora_weights": False}, "no init_lora_weights; give start="),
        ({"fan_in_fan_out": True}, "no fan_in_fan_out; how a layer stores its weight is read from the layer"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_the_one_that_does(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=message):
        TensorConfig(**arguments)
