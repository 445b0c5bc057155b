"""Train a classifier with transformers' Trainer, without PEFT. Needs ``pip install "tensoradapt[demo]" accelerate``."""

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import tensoradapt as ta
from tensoradapt.integrations.trainer import EqualSteps, SaveAdapter

data = ta.load_task("snippets", n_train=1600, n_test=500)  # or your own texts and labels
name = ta.model_folder("all-minilm-l6-v2")  # or the folder or hub name of a model of your own
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)

plan = ta.plan(model, "layer proj : head dim : model", "cp", rank=16, train="classifier")
ta.attach(model, plan, seed=0)
ta.print_trainable_parameters(model)


def encoded(split):
    rows = tokenizer([text for text, *_ in split.texts], truncation=True, max_length=64)["input_ids"]
    return [{"input_ids": row, "labels": int(label)} for row, label in zip(rows, split.labels, strict=True)]


trainer = Trainer(
    model,
    TrainingArguments(
        output_dir="runs/trainer",
        max_steps=100,
        per_device_train_batch_size=16,
        learning_rate=1.5e-3,  # of equal steps; the Trainer's default of 5e-5 is for full fine-tuning
        logging_steps=25,
        save_steps=100,
        report_to="none",
        use_cpu=True,
    ),
    train_dataset=encoded(data.train),
    eval_dataset=encoded(data.test),
    data_collator=DataCollatorWithPadding(tokenizer),
    compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
    callbacks=[EqualSteps(), SaveAdapter()],
)
trainer.train()
print(trainer.evaluate()["eval_accuracy"])

fresh = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
ta.load(fresh, "runs/trainer/checkpoint-100/adapter")  # with the head that was trained with it
