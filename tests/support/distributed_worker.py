"""What each rank of tests/training/test_distributed.py runs: DDP and FSDP2 on two ranks against one process.

Started by torchrun with a folder; the first rank prints one line of JSON, which the tests read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import transformers
from support.families import PLANNED, planned
from support.models import checkpoint_layers, inputs, make, perturb
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

import tensoradapt as ta
from tensoradapt.integrations.trainer import SaveAdapter

NAME, HEAD = "qwen2", "lm_head"
Model = tuple[nn.Module, ta.Adapter]


def attached(parameterization: str = "cp", dtype: torch.dtype = torch.float64, **changes: Any) -> Model:
    """The tiny model with every factor away from zero; the same on each rank."""
    model = make(NAME, dtype)
    adapter = ta.attach(model, planned(ta.find_sites(model), parameterization, rank=2, **changes), seed=0)
    perturb(adapter)
    return model, adapter


def sharded(model: nn.Module, **options: Any) -> nn.Module:
    """As docs/guides/distributed.md says: trained heads and blocks each on their own, the rest with the root."""
    trained = [model.lm_head] if model.lm_head.weight.requires_grad else []
    for part in (*model.model.layers, *trained):
        fully_shard(part, **options)
    fully_shard(model, **options)
    assert all(hasattr(p, "full_tensor") for p in model.parameters())
    return model


def ids() -> Tensor:
    return inputs(NAME)["input_ids"]


def own() -> Tensor:
    """This rank's half of the batch."""
    return ids()[dist.get_rank()][None]


def backward(model: nn.Module, batch: Tensor) -> None:
    model(input_ids=batch).logits.float().square().mean().backward()


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def gradients(adapter: nn.Module) -> dict[str, Tensor]:
    return {name: whole(p.grad) for name, p in adapter.named_parameters()}


def values(adapter: nn.Module) -> dict[str, Tensor]:
    return {name: whole(p) for name, p in adapter.named_parameters()}


def off(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative difference of a tensor."""
    assert set(found) == set(expected) != set()
    return max(float((found[k] - v).detach().norm() / v.norm().clamp_min(1e-30)) for k, v in expected.items())


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return set(found) == set(expected) != set() and all(torch.equal(found[k], v) for k, v in expected.items())


def refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except ta.TensorAdaptError as error:
        return str(error)
    return ""


def step(model: nn.Module, batch: Tensor, adapter: ta.Adapter, equal: bool = False) -> dict[str, Tensor]:
    """A step of AdamW, rescaled if ``equal``; returns the gradients."""
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.01, eps=1e-3)
    if equal:
        ta.equal_steps(optimizer, model)
    backward(model, batch)
    found = gradients(adapter)
    optimizer.step()
    optimizer.zero_grad()
    return found


def compared(
    parameterization: str, wrap: Callable[[nn.Module], nn.Module], equal: bool = False, **changes: Any
) -> dict[str, float]:
    """Two steps on half of the batch each, against one process on all of it."""
    (alone, one), (model, adapter) = attached(parameterization, **changes), attached(parameterization, **changes)
    wrapped, errors = wrap(model), {}
    for i in ("first", "second"):
        expected, found = step(alone, ids(), one, equal), step(wrapped, own(), adapter, equal)
        errors[f"{i} gradient"] = off(found, expected)
        errors[f"{i} step"] = off(values(adapter), values(one))
    with torch.no_grad():
        errors["output"] = off({"": wrapped(input_ids=ids()).logits}, {"": alone(input_ids=ids()).logits})
    return errors


EQUAL = ("lora", "cp", "vera")  # FSDP2 refuses equal steps
WRAPS: dict[str, Callable[[nn.Module], nn.Module]] = {"ddp": DistributedDataParallel, "fsdp2": sharded}


def families(_: Path) -> dict[str, Any]:
    return {
        how: {
            "dora": compared("cp", wrap, rule="dora"),
            **{name: compared(name, wrap) for name in PLANNED},
            **({f"{name}, equal steps": compared(name, wrap, True) for name in EQUAL} if how == "ddp" else {}),
        }
        for how, wrap in WRAPS.items()
    }


def checkpointing(_: Path) -> dict[str, Any]:
    """Gradients with gradient checkpointing, against one process without; or what refuses it."""
    wraps = {**WRAPS, "static ddp": lambda model: DistributedDataParallel(model, static_graph=True)}
    return {
        f"{name}, {how}, {'reentrant' if reentrant else 'not reentrant'}": checkpointed(name, wrap, reentrant)
        for name in ("cp", "lora")
        for how, wrap in wraps.items()
        for reentrant in (False, True)
    }


def checkpointed(name: str, wrap: Callable[[nn.Module], nn.Module], reentrant: bool) -> float | str:
    (alone, one), (model, adapter) = attached(name), attached(name)
    backward(alone, ids())
    checkpoint_layers(model.train(), reentrant)
    wrapped = wrap(model)
    worst = 0.0
    for _ in range(3):  # a static graph is learnt in the first pass and used in the others
        adapter.zero_grad()
        if message := refusal(lambda: backward(wrapped, own())):
            return message
        worst = max(worst, off(gradients(adapter), gradients(one)))
    return worst


def mixed(_: Path) -> dict[str, float]:
    """fp32 factors on a frozen bf16 base, without and with a policy that computes in bf16, against one process."""
    torch.set_default_dtype(torch.float32)
    policy = {"mp_policy": MixedPrecisionPolicy(torch.bfloat16, torch.float32)}
    found = {"plain": mixed_error(torch.float32), "policy": mixed_error(torch.bfloat16, **policy)}
    torch.set_default_dtype(torch.float64)
    return found


def mixed_error(computed: torch.dtype, **options: Any) -> float:
    (alone, one), (model, adapter) = attached(dtype=torch.bfloat16), attached(dtype=torch.bfloat16)
    one.to(computed)
    expected: dict[str, Tensor] = {}
    for row in ids():  # each sample alone, as on the ranks: sums of bf16 numbers differ with the batch
        alone.zero_grad()
        backward(alone, row[None])
        expected = {name: expected.get(name, 0) + g.float() / 2 for name, g in gradients(one).items()}
    backward(sharded(model, **options), own())
    assert {p.grad.dtype for p in adapter.parameters()} == {torch.float32}
    return off(gradients(adapter), expected)


def saving(folder: Path) -> dict[str, Any]:
    """Save an adapter from shards; load it whole, and put it back into shards."""
    model, adapter = attached(train=(HEAD,))
    backward(sharded(model), own())
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    model.zero_grad()
    adapter.save(folder / "sharded")
    (folder / "file").touch()
    found: dict[str, Any] = {"unwritable": refusal(lambda: adapter.save(folder / "file" / "below"))}
    with torch.no_grad():
        expected = model(input_ids=ids()).logits
    adapter.save(folder / "between")  # a forward pass leaves the root's parameters whole
    found["files"] = same_files(folder / "sharded", folder / "between")
    loaded = make(NAME)
    again = ta.load(loaded, folder / "sharded")
    found["loaded"] = equal(values(again), values(adapter)) and equal(values(loaded.lm_head), values(model.lm_head))
    found["output"] = off({"": loaded(input_ids=ids()).logits}, {"": expected})
    found["restored"] = restored(folder / "sharded", expected)
    return found


def same_files(one: Path, other: Path) -> bool:
    dist.barrier()
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    return len(names) == 3 and all((one / n).read_bytes() == (other / n).read_bytes() for n in names)


def restored(path: Path, expected: Tensor) -> float:
    """The output of another sharded model with the saved numbers; its parameters were whole when they came."""
    model, _ = attached(train=(HEAD,))
    with torch.no_grad():
        assert not torch.equal(sharded(model)(input_ids=ids()).logits, expected)
    ta.restore(model, path)
    backward(model, own())  # after which whole parameters are dropped
    return off({"": model(input_ids=ids()).logits.detach()}, {"": expected})


def trainable_part(folder: Path) -> dict[str, Any]:
    """torch.distributed.checkpoint of what is trained alone."""
    options = StateDictOptions(ignore_frozen_params=True)
    model, adapter = attached(train=(HEAD,))
    expected = values(adapter)
    state = get_model_state_dict(sharded(model), options=options)
    dcp.save(state, checkpoint_id=folder / "dcp")
    wanted = {f"tensoradapt.default.{name}" for name in expected} | {f"{HEAD}.weight"}
    for parameter in adapter.parameters():
        nn.init.ones_(parameter)
    state = get_model_state_dict(model, options=options)
    dcp.load(state, checkpoint_id=folder / "dcp")
    set_model_state_dict(model, state, options=StateDictOptions(strict=False))
    return {"names": sorted(set(state) ^ wanted), "equal": equal(values(adapter), expected)}


def ddp_saving(folder: Path) -> dict[str, Any]:
    """Rank 0 alone saves; the other rank is not needed."""
    model, adapter = attached()
    DistributedDataParallel(model)
    if dist.get_rank() == 0:
        adapter.save(folder / "ddp")
        return {"equal": equal(values(ta.load(make(NAME), folder / "ddp")), values(adapter))}
    return {}


def trainer(folder: Path) -> dict[str, Any]:
    """transformers' Trainer, which makes the DDP model itself."""
    model, adapter = attached()
    arguments = {"use_cpu": True, "per_device_train_batch_size": 2, "max_steps": 4, "save_steps": 2, "report_to": []}
    rows = torch.randint(2, 50, (16, 7), generator=torch.Generator().manual_seed(0))
    run = transformers.Trainer(
        model,
        transformers.TrainingArguments(str(folder / "trainer"), disable_tqdm=True, **arguments),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        callbacks=[SaveAdapter()],
    )
    run.train()
    saved = ta.load(make(NAME), folder / "trainer" / "checkpoint-4" / "adapter")
    every: list[Any] = [None, None]
    dist.all_gather_object(every, values(adapter))
    same = {"ranks": equal(*every), "saved": equal(values(saved), values(adapter))}
    return {"ddp": isinstance(run.model_wrapped, DistributedDataParallel), **same}


def refused(folder: Path) -> dict[str, str]:
    """Return the refusals of what a sharded model cannot do."""
    model, bare = sharded(attached()[0]), sharded(make(NAME))
    plan = planned(ta.find_sites(make(NAME)), "cp", rank=2)
    calls: dict[str, Callable[[], Any]] = {
        "attach": lambda: ta.attach(bare, plan),
        "load": lambda: ta.load(bare, folder / "sharded"),
        "merge": lambda: ta.merge(model),
        "detach": lambda: ta.detach(model),
        "export": lambda: ta.export_lora(model, folder / "lora"),
        "rank reduction": lambda: ta.reduce_rank(model, rank=1),
        "preconditioned gradients": lambda: ta.preconditioned(torch.optim.SGD(model.parameters()), model),
        "orthonormal factors": lambda: ta.orthonormal(torch.optim.SGD(model.parameters()), model),
        "equal steps": lambda: ta.equal_steps(torch.optim.SGD(model.parameters()), model),
    }
    return {what: refusal(call) for what, call in calls.items()}


def too_late(_: Path) -> dict[str, str]:
    """Return the refusals of factors that came into a model which DDP holds."""
    model = make(NAME)
    ddp = DistributedDataParallel(model)
    adapter = ta.attach(model, planned(ta.find_sites(model), "cp", rank=3))
    found = {"attach": refusal(lambda: backward(ddp.train(), own()))}
    ddp = DistributedDataParallel(model)
    backward(ddp, own())
    ta.reduce_rank(model, rank=2)
    found["reduce_rank"] = refusal(lambda: backward(ddp, own()))
    with torch.no_grad():
        ddp(input_ids=own())  # without gradients nothing can be missed
    assert adapter.averaged_by == 0
    ddp = DistributedDataParallel(model)
    backward(ddp, own())
    ta.attach(model, planned(ta.find_sites(model), "cp", rank=3, train=(HEAD,)), name="second")
    ddp = DistributedDataParallel(model)  # with the first frozen
    backward(ddp, own())
    ta.use(model, "default")
    found["use"] = refusal(lambda: backward(ddp, own()))
    model, _ = attached()
    ddp = DistributedDataParallel(model)
    second = ta.attach(model, planned(ta.find_sites(model), "cp", rank=3, train=(HEAD,)), name="second")
    second.requires_grad_(False)  # its head alone is trained
    found["head"] = refusal(lambda: backward(ddp.train(), own()))
    return found


CASES = [families, checkpointing, mixed, saving, trainable_part, ddp_saving, refused, too_late, trainer]


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    torch.set_default_dtype(torch.float64)
    found = {case.__name__: case(folder) for case in CASES}
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, found)
    if dist.get_rank() == 0:
        print(json.dumps(every), flush=True)
    dist.barrier()
    # not by the interpreter's own way out: models under DDP keep gloo's threads beyond destroy_process_group, and one
    # that drops a tensor while the interpreter ends aborts the process (pytorch/pytorch issue 190489)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
