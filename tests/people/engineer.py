"""What an engineer writes: texts of a CSV file in long-tailed classes, from the file to a pipeline that names them.

Run in a folder with texts.csv (columns text and label); prints facts that the test reads.
"""

import json

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from transformers import pipeline

import tensoradapt as ta

if __name__ == "__main__":  # the processes of a sweep import this file
    ta.register_task("icd", train="texts.csv", text="text", label="label", metric="f1_macro", max_length=32)
    spec = {"model": "all-minilm-l6-v2", "task": "icd", "method": ["lora", "cp"], "rank": 8}
    ta.sweep({**spec, "lr": 2e-3, "seed": [0, 1], "steps": 250}, "runs")

    data = ta.load_task("icd")
    texts, labels = ([text for (text,) in data.train.texts], data.train.labels)
    baseline = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=500))
    guesses = baseline.fit(texts, labels).predict([text for (text,) in data.test.texts])

    best = ta.results("runs").sort_values("validation").iloc[-1]
    trained = ta.load_run("runs", best.id)
    ta.save_model(ta.merge_and_unload(trained.model), "served", trained.tokenizer)
    answer = pipeline("text-classification", model="served")
    few = [text for (text,) in data.test.texts[:40]]
    print(
        json.dumps(
            {
                "best": best.method,
                "f1": float(best.score),
                "baseline": float(f1_score(data.test.labels, guesses, average="macro")),
                "answers": [found["label"] for found in answer(few)],
                "labels": [trained.task.classes[label] for label in data.test.labels[:40]],
                "classes": list(trained.task.classes),
            }
        )
    )
