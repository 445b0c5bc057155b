"""What ms-swift trains: ``swift sft --external_plugins ms_swift_adapter.py --tuner_type tensoradapt``."""

from tensoradapt.extras.ms_swift import register
from tensoradapt.integrations.peft import TensorConfig

register(
    TensorConfig(
        task_type="CAUSAL_LM",
        layout="layer proj : head dim : model",
        method="cp",
        rank=8,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
    )
)
