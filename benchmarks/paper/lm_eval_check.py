"""Whether the likelihoods of options that task "alpaca" compares are those of lm-evaluation-harness.

    pip install lm_eval
    python benchmarks/paper/lm_eval_check.py --items 20      # writes benchmarks/records/lm_eval_check.json

Both read the same local rows of BoolQ, ARC-Easy and OpenBookQA, ask the same model in fp32 in its chat template, and
give each option "the correct answer is ..." the sum of the log-likelihoods of its tokens. lm-evaluation-harness counts
the space at the end of a prompt, here the template's line break, as the answer's; it is the same for all options of a
question. So the likelihoods are compared with it, and their differences between options as the task has them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tensoradapt.files import replace_file
from tensoradapt.lab.data.models import load_causal
from tensoradapt.lab.tasks.splits import Split, take
from tensoradapt_paper.language.alpaca import ALPACA
from tensoradapt_paper.language.instruction_rows import QUESTIONS, questions

RECORD = Path(__file__).parents[1] / "records" / "lm_eval_check.json"
NAME = "options"
TASK = {  # a task of lm-evaluation-harness
    "task": NAME,
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{options}}",
    "doc_to_target": "{{right}}",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def main() -> None:
    """Compare, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    args = parser.parse_args()
    chosen = [take(questions(kind)[0], np.arange(-(-args.items // len(QUESTIONS)))) for kind in QUESTIONS]
    items = [(part, row) for row in range(len(chosen[0])) for part in chosen][: args.items]
    model, tokenizer = load_causal(args.model)
    single = [take(part, np.array([row])) for part, row in items]
    own, with_space = ([_own(model, tokenizer, item, args.model, space) for item in single] for space in (False, True))
    theirs, accuracy = _harness(model, tokenizer, items)
    right = [int(item.labels[0]) for item in single]
    ours = float(np.mean([int(np.argmax(one)) == place for one, place in zip(own, right, strict=True)]))
    found = {
        "model": args.model,
        "items": len(items),
        "options": sum(map(len, own)),
        "largest_difference_nats": _apart(with_space, theirs),
        "largest_difference_between_options_nats": _apart(*map(_against_first, (own, theirs))),
        "accuracy": ours,
        "accuracy_lm_eval": accuracy,
        "lm_eval": version("lm_eval"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    print(json.dumps(found, indent=1))
    replace_file(RECORD, json.dumps(found, indent=1).encode() + b"\n")


def _apart(own: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    return max(abs(a - b) for one, other in zip(own, theirs, strict=True) for a, b in zip(one, other, strict=True))


def _against_first(items: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[value - values[0] for value in values] for values in items]


@torch.no_grad()
def _own(model: torch.nn.Module, tokenizer: Any, item: Split, name: str, space: bool) -> list[float]:
    """The log-likelihoods of an item's options; ``space``: with that of the white space behind its prompt."""
    task = ALPACA
    (question,) = task.encode(item, name, 10_000)
    start = question.options[0].start
    while space and tokenizer.decode([question.options[0].ids[start - 1]]).isspace():
        start -= 1
    asked = replace(question, options=tuple(replace(option, start=start) for option in question.options))
    found = task.predict(model, task.collate([asked], model, "cpu"))
    return [float(value) for value in found[0, 2 : 2 + len(asked.options)]]


def _harness(model: Any, tokenizer: Any, items: Sequence[tuple[Split, int]]) -> tuple[list[list[float]], float]:
    """The log-likelihoods of the options of each item, and the accuracy, by lm-evaluation-harness."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for part, row in items:
            assert part.texts is not None
            question, *options = part.texts[row]
            rows.append({"question": question, "options": options, "right": int(part.labels[row])})
        data = Path(folder) / "items.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = {**TASK, "dataset_kwargs": {"data_files": {"test": str(data)}}}
        (Path(folder) / "options.yaml").write_text(json.dumps(settings))  # JSON is YAML
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1),
            tasks=[NAME],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            apply_chat_template=True,
            log_samples=True,
            bootstrap_iters=0,
        )
    samples = sorted(found["samples"][NAME], key=lambda sample: sample["doc_id"])
    likelihoods = [[float(answer[0]) for answer in sample["filtered_resps"]] for sample in samples]
    return likelihoods, float(found["results"][NAME]["acc,none"])


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
