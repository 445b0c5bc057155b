"""LLaMA-Factory with an adapter: ``python llama_factory_adapter.py train llama_factory.yaml``."""

from tensoradapt.extras.llama_factory import launch
from tensoradapt.integrations.peft import TensorConfig
from tensoradapt.integrations.trainer import EqualSteps

config = TensorConfig(
    task_type="CAUSAL_LM",
    layout="layer proj : head dim : model",
    method="cp",
    rank=8,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
)
if __name__ == "__main__":
    launch(config, EqualSteps())
