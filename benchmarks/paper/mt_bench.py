"""MT-Bench's questions answered greedily in both turns, as FastChat's judge reads answers. No judge is called.

    python benchmarks/paper/mt_bench.py --adapter runs/paper/instruct-adapter            # all 80; goes on where it was
    python benchmarks/paper/mt_bench.py --limit 2 --tokens 64 --out runs/mt_bench        # the model without an adapter

An adapter is a folder that its ``save`` wrote, such as answers.py's. ``--out`` gets ``MODEL_ID.jsonl``, a line a
question: put it into fastchat/llm_judge/data/mt_bench/model_answer and run gen_judgment.py there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generating import answer

import tensoradapt as ta
from tensoradapt.lab.data.models import load_causal

QUESTIONS = "instruct/mt_bench_question.jsonl"


def main() -> None:
    """Answer the questions that have no answer in the file yet."""
    args = _arguments()
    file = args.out / f"{args.model_id or _name(args)}.jsonl"
    questions = [json.loads(line) for line in args.questions.read_text().split("\n") if line.strip()][: args.limit]
    done = _answered(file)
    left = [question for question in questions if question["question_id"] not in done]
    print(f"{len(questions) - len(left)} of {len(questions)} questions are answered in {file}", flush=True)
    if not left:
        return
    model, tokenizer = load_causal(args.model)
    if args.adapter:
        ta.load(model, args.adapter)
    model.to(args.device)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        for question in left:
            record = _record(question, file.stem, _turns(model, tokenizer, question, args.tokens))
            out.write(json.dumps(record) + "\n")
            out.flush()
            print(f"question {question['question_id']} is answered", flush=True)


def _answered(file: Path) -> set[int]:
    """The questions that have an answer; a last line that was cut short is removed."""
    if not file.exists():
        return set()
    whole, _, _ = file.read_text().rpartition("\n")
    file.write_text(whole + "\n" if whole else "")
    return {json.loads(line)["question_id"] for line in whole.split("\n") if line}


def _turns(model: Any, tokenizer: Any, question: Mapping[str, Any], tokens: int) -> list[str]:
    said: list[str] = []
    for turn in question["turns"]:
        said.append(turn)
        said.append(answer(model, tokenizer, said, tokens))
    return said[1::2]


def _record(question: Mapping[str, Any], model_id: str, turns: list[str]) -> dict[str, Any]:
    """A line as FastChat's gen_model_answer.py writes it."""
    key = hashlib.sha256(f"{model_id} {question['question_id']}".encode()).hexdigest()[:22]
    return {
        "question_id": question["question_id"],
        "answer_id": key,
        "model_id": model_id,
        "choices": [{"index": 0, "turns": turns}],
        "tstamp": time.time(),
    }


def _name(args: argparse.Namespace) -> str:
    base = args.model.rpartition("/")[2]
    return f"{base}-{args.adapter.name}" if args.adapter else base


def _arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="smollm2-135m-instruct")
    p.add_argument("--adapter", type=Path, help="a folder of an adapter's save; default none")
    p.add_argument("--model-id", help="what the judge calls it (default: model and adapter)")
    data = Path(os.environ.get("TENSORADAPT_DATA", "")) / QUESTIONS
    p.add_argument("--questions", type=Path, default=data, help=f"default: TENSORADAPT_DATA/{QUESTIONS}")
    p.add_argument("--out", type=Path, default=Path("runs") / "paper" / "mt_bench" / "model_answer")
    p.add_argument("--limit", type=int, help="answer only the first so many questions")
    p.add_argument("--tokens", type=int, default=1024, help="most tokens of an answer; FastChat's default")
    p.add_argument("--device", default="cpu")
    return p.parse_args()


if __name__ == "__main__":
    main()
