"""Train an instruction adapter, let it answer held-out prompts, and check that its LoRA export says the same in PEFT.

    python benchmarks/paper/answers.py                     # writes docs/results/instruct/answers.json
    python benchmarks/paper/answers.py --steps 4 --out runs/answers --adapter runs/adapter     # a look

LoRTA (CP over "layer proj : head dim : model") on SmolLM2-135M-Instruct by ``ta.fit`` on task "alpaca". Text is
greedy, in fp32, and ends at the token that ends a turn. The adapter is saved in ``--adapter``, which mt_bench.py takes,
and as a LoRA folder below it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from generating import answer

import tensoradapt as ta
from tensoradapt.files import replace_files
from tensoradapt.lab.data.models import load_causal
from tensoradapt.lab.tasks.splits import DataSpec, Split
from tensoradapt_paper.language.alpaca import ALPACA

ROOT = Path(__file__).parents[2]
LAYOUT = "layer proj : head dim : model"
PROMPTS, LENGTH = 5, 128  # held-out prompts, and tokens of a training example
SEED = 0


def main() -> None:
    """Train, answer, export, compare and write."""
    args = _arguments()
    task = ALPACA
    data = task.load(args.model, DataSpec(n_test=4 * PROMPTS, max_length=LENGTH), SEED)
    asked = [prompt for prompt, *options in data.test.texts or () if len(options) == 1][:PROMPTS]
    model, tokenizer = load_causal(args.model)
    before = [answer(model, tokenizer, [prompt], args.tokens) for prompt in asked]
    adapter, losses = _trained(model, data.train, args)
    after = [answer(model, tokenizer, [prompt], args.tokens) for prompt in asked]
    adapter.save(args.adapter)
    exported = ta.export_lora(model, args.adapter / "lora", base_model=args.model)
    ta.detach(model)
    again = _in_peft(args, tokenizer, asked)
    same = [a == b for a, b in zip(after, again, strict=True)]
    truth = {question: answer for question, answer, *_ in data.test.texts or ()}
    rows = [
        {"prompt": prompt, "base": old, "adapter": new, "peft": peft, "alpaca": truth[prompt]}
        for prompt, old, new, peft in zip(asked, before, after, again, strict=True)
    ]
    facts = {
        "model": args.model,
        "adapter": f"cp over {LAYOUT}, rank {args.rank}, {exported.rank} as LoRA",
        "training": f"{args.steps} equal steps of {args.batch} rows at {args.lr:g}, seed {SEED}",
        "loss": [round(sum(part) / len(part), 3) for part in (losses[:10], losses[-10:])],
        "same_text_in_peft": f"{sum(same)} of {len(same)}",
    }
    _write(args.out, facts, rows)
    print(json.dumps(facts, indent=1))
    if not all(same):
        raise SystemExit("the text of the exported adapter is another one in PEFT")


def _trained(model: torch.nn.Module, train: Split, args: argparse.Namespace) -> tuple[Any, Sequence[float]]:
    task = ALPACA
    plan = ta.plan(model, layout=LAYOUT, method="cp", rank=args.rank)
    print(plan, flush=True)
    adapter = ta.attach(model, plan, seed=SEED)
    examples = task.encode(train, args.model, LENGTH)

    def batches() -> Iterator[Mapping[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(SEED)
        while True:
            for rows in torch.randperm(len(examples), generator=generator).split(args.batch):
                yield task.collate([examples[row] for row in rows.tolist()], model, "cpu")

    options: dict[str, Any] = {"lr": args.lr, "steps": args.steps, "optimizer": "equal_steps", "precision": "bf16"}
    return adapter, ta.fit(model, batches(), loss=task.loss, on_step=_say, **options).losses


def _say(step: int, loss: float) -> None:
    print(f"step {step}: loss {loss:.3f}", flush=True)


def _in_peft(args: argparse.Namespace, tokenizer: Any, asked: Sequence[str]) -> list[str]:
    """The answers of a new base with the exported folder, loaded by PEFT."""
    from peft import PeftModel

    base, _ = load_causal(args.model)
    model = PeftModel.from_pretrained(base, args.adapter / "lora").eval()
    return [answer(model, tokenizer, [prompt], args.tokens) for prompt in asked]


def _write(out: Path, facts: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> None:
    """Write what was trained and the answers."""
    content = json.dumps({**facts, "answers": list(rows)}, indent=1, ensure_ascii=False) + "\n"
    replace_files({out / "answers.json": content.encode()})


def _arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="smollm2-135m-instruct")
    p.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "instruct")
    p.add_argument("--adapter", type=Path, default=Path("runs") / "paper" / "instruct-adapter")
    p.add_argument("--rank", type=int, default=64)
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--tokens", type=int, default=80, help="most tokens of an answer")
    return p.parse_args()


if __name__ == "__main__":
    main()
