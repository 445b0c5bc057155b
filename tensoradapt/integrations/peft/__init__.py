"""Importing the PEFT plug-in registers ``TensorConfig`` as a method of HF PEFT, in this process.

``get_peft_model``, ``PeftModel.from_pretrained``, ``merge_and_unload``, ``disable_adapter`` and every trainer that
takes a PeftModel then work as they do with PEFT's own methods.

Raises TensorAdaptError where PEFT is missing or too old.
"""

from tensoradapt.errors import TensorAdaptError, missing_extra

try:
    from peft.tuners.tuners_utils import BaseTuner
    from peft.utils.peft_types import register_peft_method
except ImportError:
    raise missing_extra("peft", "peft", "tensoradapt.integrations.peft") from None
if not hasattr(BaseTuner, "_remove_adapter_name_from_key"):
    raise TensorAdaptError(
        "the installed peft has its own list of the methods it can save; tensoradapt.integrations.peft needs 0.21 or "
        'newer: run pip install "tensoradapt[peft]"'
    )

from tensoradapt.integrations.peft.config import NAME, TensorConfig
from tensoradapt.integrations.peft.model import TensorModel
from tensoradapt.training.fit import parameter_groups

__all__ = ["TensorConfig", "TensorModel", "parameter_groups"]

register_peft_method(name=NAME, config_cls=TensorConfig, model_cls=TensorModel)
