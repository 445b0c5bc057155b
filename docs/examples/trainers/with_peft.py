"""Train an adapter through PEFT in a loop of one's own. Needs ``pip install "tensoradapt[demo,peft]"``."""

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tensoradapt as ta
from tensoradapt.integrations.peft import TensorConfig  # importing it registers the method

data = ta.load_task("snippets", n_train=1600, n_test=500)  # or your own texts and labels
name = ta.model_folder("all-minilm-l6-v2")  # or the folder or hub name of a model of your own
tokenizer = AutoTokenizer.from_pretrained(name)
base = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
config = TensorConfig(
    task_type="SEQ_CLS",
    layout="layer proj : head dim : model",
    method="cp",
    r=16,  # rank=16 is the same
    lora_alpha=16,  # alpha=16 is the same: with the matched scale the first step is that of LoRA r=8, alpha=16
    target_modules=["query", "key", "value", "attention.output.dense"],
    modules_to_save=["classifier"],
)
model = get_peft_model(base, config)
model.print_trainable_parameters()

optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1.5e-3)
optimizer = ta.equal_steps(optimizer, model)  # one learning rate for every parameterization and rank


def batch(split, start, n=16):
    texts = [text for text, *_ in split.texts[start : start + n]]
    labels = torch.tensor(list(split.labels[start : start + n]))
    return tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt"), labels


model.train()
for step in range(100):
    inputs, labels = batch(data.train, 16 * step)
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 25 == 24:
        print(f"step {step + 1}: loss {loss.item():.3f}")
model.save_pretrained("runs/peft/adapter")

loaded = PeftModel.from_pretrained(
    AutoModelForSequenceClassification.from_pretrained(name, num_labels=2), "runs/peft/adapter"
).eval()
with torch.no_grad():
    right = sum(
        int((loaded(**inputs).logits.argmax(-1) == labels).sum())
        for inputs, labels in (batch(data.test, start) for start in range(0, 500, 16))
    )
print(f"accuracy {right / 500:.3f}")
