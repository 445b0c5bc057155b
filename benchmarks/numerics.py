"""Merge, export and compress against float64, for every parameterization.

    python benchmarks/numerics.py

Writes records/numerics.json and prints the table of docs/reference/numerics.md. The updates of a small BERT's attention
have one hundredth of the weights' norm. Errors are relative Frobenius norms over all matrices:

    merge     of the stored sum against W + delta, both in float64; and the share of the update that rounding lost
    export    of B A as stored, multiplied in float64, against delta in float64
    compress  difference of the stated error and the one computed anew, dense and in float64, from the saved folder
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from measure import RECORDS, keep, options, place, tests_on_path

ASKED = options(__name__, __doc__)

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import tensoradapt as ta
from tensoradapt.lora.read_folder import read_lora
from tensoradapt.storage.load import unattached

tests_on_path()
from support.families import PLANNED, planned

RECORD = RECORDS / "numerics.json"
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip
CONFIG = BertConfig(
    hidden_size=24, num_attention_heads=4, num_hidden_layers=2, intermediate_size=32, vocab_size=40,
    max_position_embeddings=16,
)  # fmt: skip
SHARE = 0.01  # an update's norm in that of the weights
# units in the last place that rounding once to a dtype may be off: half of one, relative to a number's power of two
UNIT: Mapping[str, float] = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
# the documented bounds: rounding once, plus what sums in float32 add
MERGE = {name: unit + 8 * UNIT["float32"] for name, unit in UNIT.items()}
EXPORT = {name: 2.5 * unit + 64 * UNIT["float32"] for name, unit in UNIT.items()}
COMPRESS = 1e-6
COMPRESSED = ("lora", "cp", "tucker", "tensor_train")


def norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def distance(found: Mapping[str, Tensor], true: Mapping[str, Tensor]) -> float:
    """The norm of a difference over that of the true values, in float64."""
    return norm(found[name].double() - true[name] for name in true) / norm(true.values())


@torch.no_grad()
def adapted(parameterization: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, ta.Adapter]:
    """The model in a dtype with an adapter in float32 of random values, whose updates have ``SHARE`` of its norm."""
    torch.manual_seed(0)
    model: nn.Module = BertModel(CONFIG)
    model.to(dtype).eval()
    plan = planned(ta.find_sites(model, "attention"), parameterization, rank=2, train=())
    adapter = ta.attach(model, plan, seed=0)
    for parameter in adapter.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    size = norm(adapter.delta(site) for site in plan.sites) / norm(weights(model, plan).values())
    for site in plan.sites:
        layer: Any = model.get_submodule(site.name)
        layer.base.weight.mul_(size / SHARE)
    return model, adapter


def weights(model: nn.Module, plan: ta.Plan) -> dict[str, Tensor]:
    layers: dict[str, Any] = {site.name: model.get_submodule(site.name) for site in plan.sites}
    return {name: layer.base.weight.detach() for name, layer in layers.items()}


@torch.no_grad()
def deltas(adapter: ta.Adapter) -> dict[str, Tensor]:
    """The updates in float64; the adapter stays so."""
    adapter.double()
    return {site.name: adapter.delta(site).detach() for site in adapter.plan.sites}


def merged(parameterization: str, dtype: str) -> dict[str, float]:
    """The error of merged weights, and the share of the update that rounding lost, of all and as merge says."""
    model, adapter = adapted(parameterization, DTYPES[dtype])
    before = {name: weight.double() for name, weight in weights(model, adapter.plan).items()}
    said = max(ta.merge(model).lost.values())
    after, true = weights(model, adapter.plan), deltas(adapter)
    sums = {name: before[name] + true[name] for name in true}
    lost = norm(after[name].double() - sums[name] for name in true) / norm(true.values())
    return {"error": distance(after, sums), "lost": lost, "said": said}


def exported(parameterization: str, dtype: str, folder: Path) -> float:
    """The error of the pairs of an export."""
    model, adapter = adapted(parameterization)
    ta.export_lora(model, folder / dtype, dtype=dtype)
    pairs = read_lora(folder / dtype)
    true = deltas(adapter)
    found = {name: torch.from_numpy(pairs[name].b).double() @ torch.from_numpy(pairs[name].a).double() for name in true}
    return distance(found, true)


def compressed(parameterization: str, folder: Path) -> tuple[float, float]:
    """The error that compress states for a LoRA of rank 4 in this form, and that of the saved adapter."""
    _, adapter = adapted("lora")
    true = {name: delta.float().double() for name, delta in deltas(adapter).items()}
    layout = ": out : in" if parameterization == "lora" else "layer proj : out : in"
    sites = list(ta.find_sites(CONFIG, "attention"))
    result = ta.compress(true, sites, layout, parameterization, rank=1 if parameterization == "lora" else 4)
    result.save(folder / "compressed")
    return result.error, distance(deltas(unattached(folder / "compressed")), true)


def measured(parameterization: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {
            "merge": {dtype: merged(parameterization, dtype) for dtype in DTYPES},
            "export": {dtype: exported(parameterization, dtype, Path(folder)) for dtype in DTYPES},
        }


def main() -> None:
    """Measure all, or with ``--quick`` LoRA alone; write the record and print the table."""
    rows = {name: measured(name) for name in PLANNED if name == "lora" or not ASKED.quick}
    stated = {}
    for name in COMPRESSED[: 1 if ASKED.quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            stated[name] = compressed(name, Path(folder))
    keep(place(ASKED, "numerics.json"), {"share": SHARE, "errors": rows, "compress": stated})
    print(*table(rows), sep="\n")
    print(*(f"{name}: states {said!r}, is {found!r}" for name, (said, found) in stated.items()), sep="\n")


def table(rows: Mapping[str, Any]) -> list[str]:
    """The table of docs/reference/numerics.md."""
    lines = [
        "| parameterization | merge fp32 | bf16 | fp16 | of the update lost: bf16 | fp16 | export fp32 | bf16 | fp16 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        merge = [row["merge"][dtype]["error"] for dtype in DTYPES]
        lost = [row["merge"][dtype]["lost"] for dtype in ("bfloat16", "float16")]
        numbers = [*merge, *lost, *row["export"].values()]
        lines.append(f"| {name} | {' | '.join(f'{number:.1e}' for number in numbers)} |")
    return lines


if __name__ == "__main__":
    main()
