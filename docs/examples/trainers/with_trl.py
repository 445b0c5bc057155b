"""Fine-tune SmolLM2 on reviews with TRL's SFTTrainer. Needs ``pip install "tensoradapt[peft]" accelerate trl``."""

from datasets import Dataset
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import tensoradapt as ta
from tensoradapt.integrations.peft import TensorConfig  # importing it registers the method
from tensoradapt.integrations.trainer import EqualSteps

name = ta.model_folder("HuggingFaceTB/SmolLM2-135M-Instruct")  # or any causal model
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="float32")
config = TensorConfig(task_type="CAUSAL_LM", layout="layer proj : head dim : model", method="cp", rank=8)
model = get_peft_model(model, config)
model.print_trainable_parameters()

texts = [text for text, *_ in ta.load_task("snippets", n_train=240).train.texts]  # or your own list of texts
arguments = SFTConfig(
    output_dir="runs/trl",
    max_steps=60,
    per_device_train_batch_size=4,
    max_length=64,
    learning_rate=5e-3,  # of equal steps; TRL's default of 2e-5 is for full fine-tuning and moves nothing here
    logging_steps=10,
    report_to="none",
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
)
trainer = SFTTrainer(
    model,
    args=arguments,
    train_dataset=Dataset.from_dict({"text": texts}),
    processing_class=tokenizer,
    callbacks=[EqualSteps()],  # one learning rate for every parameterization and rank
)
trainer.train()
trainer.save_model("runs/trl/adapter")

base = AutoModelForCausalLM.from_pretrained(name, dtype="float32")
loaded = PeftModel.from_pretrained(base, "runs/trl/adapter").eval()
prompt = tokenizer("This film is", return_tensors="pt")
print(tokenizer.decode(loaded.generate(**prompt, max_new_tokens=12, do_sample=False)[0]))
