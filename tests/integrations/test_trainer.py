"""Trainers of other libraries on an attached model: transformers' Trainer, accelerate, generate, autocast, devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from safetensors import safe_open
from support.models import checkpoint_layers, inputs, make, perturb
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import tensoradapt as ta
from tensoradapt.integrations.trainer import EqualSteps, SaveAdapter

LAYOUT, HEAD = "layer proj : head dim : model", "classifier"
Model = tuple[nn.Module, ta.Adapter]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """accelerate keeps its settings in the process, its precision in the environment."""
    before = dict(os.environ)
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.clear()
    os.environ.update(before)


def attached(name: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any) -> Model:
    """A tiny model with an adapter away from zero."""
    model = make(name, dtype)
    adapter = ta.attach(model, ta.plan(model, LAYOUT, "cp", 4, **changes), seed=0)
    perturb(adapter)
    return model, adapter


def classifier(**changes: Any) -> Model:
    """A tiny BERT with a fresh adapter and a head to train."""
    model = make("bert", torch.float32)
    return model, ta.attach(model, ta.plan(model, LAYOUT, "cp", 4, train=HEAD, **changes), seed=0)


def samples() -> list[dict[str, Any]]:
    """The last token is noise, the others tell the label."""
    noise = torch.randint(2, 50, (32, 1), generator=torch.Generator().manual_seed(0))
    rows = [torch.cat([torch.full((6,), 9 * (i % 3) + 5), last]) for i, last in enumerate(noise)]
    return [{"input_ids": row, "labels": i % 3} for i, row in enumerate(rows)]


def trainer(model: nn.Module, folder: Path, *callbacks: Any, epochs: int = 2, **options: Any) -> Trainer:
    optimizers = options.pop("optimizers", (None, None))
    settings = {"learning_rate": 1e-2, "num_train_epochs": epochs, "per_device_train_batch_size": 8, "save_steps": 4}
    settings |= {
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "dataloader_pin_memory": False,
    }
    arguments = TrainingArguments(str(folder), **{**settings, **options})
    data = {"train_dataset": samples(), "eval_dataset": samples()}
    return Trainer(model, arguments, **data, callbacks=list(callbacks), optimizers=optimizers)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[name], value) for name, value in expected.items())


def gradients(model: nn.Module, adapter: ta.Adapter, **batch: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(6)  # the same dropout at every call
    model(**batch).logits.float().square().mean().backward()
    return {name: p.grad.clone() for name, p in adapter.named_parameters()}


@pytest.mark.thorough
def test_a_trainer_trains_the_adapter_and_the_head_alone(tmp_path: Path) -> None:
    model, _ = classifier()
    before, trained = state(model), {name for name, p in model.named_parameters() if p.requires_grad}
    run = trainer(model, tmp_path, epochs=10, save_strategy="no", learning_rate=3e-2)
    run.train()
    losses = [float(entry["loss"]) for entry in run.state.log_history if "loss" in entry]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    assert {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])} == trained


@pytest.mark.thorough
@pytest.mark.parametrize("callbacks", [[], [SaveAdapter(trained_only=False)], [SaveAdapter()], [EqualSteps()]])
def test_a_trainer_resumes_bit_for_bit(tmp_path: Path, callbacks: list[TrainerCallback]) -> None:
    model, _ = classifier()
    trainer(model, tmp_path, *callbacks).train()
    again, _ = classifier()
    trainer(again, tmp_path, *callbacks).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert same(state(again), state(model))


class Watch(TrainerCallback):
    """Keeps how far each step moved the updates, and what the schedule asked for."""

    def __init__(self, adapter: ta.Adapter) -> None:
        self.adapter, self.moved, self.asked = adapter, list[float](), list[float]()
        self.before = self.deltas()

    def deltas(self) -> Tensor:
        return torch.cat([self.adapter.delta(site).detach().flatten() for site in self.adapter.plan.sites])

    def on_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
        now = self.deltas()
        self.moved.append(float((now - self.before).square().mean().sqrt()))
        self.before = now

    def on_pre_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
        self.asked.append(kwargs["optimizer"].param_groups[0]["lr"] * 2 * (8 / (3 * 30)) ** 0.5)


@pytest.mark.thorough
def test_a_trainers_steps_are_equal(tmp_path: Path) -> None:
    model, adapter = classifier()
    watch = Watch(adapter)
    run = trainer(
        model, tmp_path, EqualSteps(), watch, save_strategy="no", warmup_steps=3, gradient_accumulation_steps=2
    )
    run.train()
    assert len(watch.moved) == 4 and len(set(watch.asked)) > 2
    assert watch.moved == pytest.approx(watch.asked, rel=1e-3)  # float32 factors
    run.train()  # the optimizer is the same one
    assert len(watch.moved) == 8


@pytest.mark.thorough
def test_each_checkpoint_holds_the_adapter_and_not_the_base(tmp_path: Path) -> None:
    model, adapter = classifier()
    trainer(model, tmp_path, SaveAdapter()).train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}
    for step in (4, 8):
        with safe_open(tmp_path / f"checkpoint-{step}" / "model.safetensors", "pt") as file:
            assert trained <= set(file.keys()) <= trained | buffers
    loaded = make("bert", torch.float32)
    again = ta.load(loaded, tmp_path / "checkpoint-8" / "adapter")
    assert same(state(again), state(adapter))
    assert same(state(loaded.classifier), state(model.classifier))
    ta.restore(model, tmp_path / "checkpoint-4" / "adapter")  # the run's own model goes back to an earlier step
    earlier = ta.load(make("bert", torch.float32), tmp_path / "checkpoint-4" / "adapter")
    assert same(state(adapter), state(earlier))
    assert not same(state(adapter), state(again))


@pytest.mark.thorough
def test_the_best_checkpoint_is_loaded_at_the_end(tmp_path: Path) -> None:
    model, adapter = classifier()
    options = {"eval_strategy": "steps", "eval_steps": 4, "load_best_model_at_end": True, "learning_rate": 0.1}
    run = trainer(model, tmp_path, SaveAdapter(), epochs=3, **options, per_device_eval_batch_size=8)
    run.train()
    best = ta.load(make("bert", torch.float32), Path(run.state.best_model_checkpoint) / "adapter")
    assert same(state(adapter), state(best))


@pytest.mark.parametrize("end", [ta.merge_and_unload, ta.detach])
def test_a_model_is_saved_whole_after_its_trainers(end: Callable[[nn.Module], object], tmp_path: Path) -> None:
    model, _ = classifier()
    before = model._keys_to_ignore_on_save
    for _ in range(2):  # neither trains
        trainer(model, tmp_path, SaveAdapter())
    assert len(model._keys_to_ignore_on_save) > 20
    end(model)
    assert model._keys_to_ignore_on_save == before
    model.save_pretrained(tmp_path)
    assert same(state(type(model).from_pretrained(tmp_path)), state(model))


def test_a_trainer_steps_each_factor_at_its_own_rate(tmp_path: Path) -> None:
    model, adapter = classifier(rates={"layer": 16.0})
    optimizer = torch.optim.SGD(ta.parameter_groups(model, 1e-2, head_lr=1e-3, heads=[HEAD]))
    run = trainer(model, tmp_path, optimizers=(optimizer, None), max_steps=1, max_grad_norm=0.0, save_strategy="no")
    before, found = state(model), {}

    def keep(*_: Any) -> None:
        found.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    optimizer.register_step_pre_hook(keep)
    run.train()
    factors = {f"tensoradapt.default.{name}": p for name, p in adapter.named_parameters()}
    assert {16.0, 1.0} == set(adapter.rates().values())
    for name, gradient in found.items():
        rate = 1e-2 * adapter.rates()[factors[name]] if name in factors else 1e-3
        torch.testing.assert_close(model.state_dict()[name], before[name] - rate * gradient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate_prepares_an_attached_model(precision: str) -> None:
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
    model, adapter = attached()
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(ta.parameter_groups(model, 1e-2)))
    before = state(model)
    accelerator.backward(prepared(**inputs("llama")).logits.square().mean())
    optimizer.step()
    assert accelerator.unwrap_model(prepared) is model
    assert {p.grad.dtype for p in adapter.parameters()} == {torch.float32}
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"tensoradapt.default.{name}" for name, _ in adapter.named_parameters()}


def test_autocast_gives_finite_fp32_gradients_close_to_those_without() -> None:
    model, adapter = attached()
    expected = gradients(model, adapter, **inputs("llama"))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(**inputs("llama")).logits.dtype == torch.bfloat16
        found = gradients(model, adapter, **inputs("llama"))
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float32
        assert (found[name] - gradient).norm() < 0.03 * gradient.norm()  # bf16 rounds to 1 part in 256


def test_generating_with_a_cache_is_taking_the_merged_model_s_best_token_step_by_step() -> None:
    model, _ = attached(dtype=torch.float64)
    ids = inputs("llama")["input_ids"]
    found = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=1)
    ta.merge(model)
    for _ in range(12):
        best = model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, best], dim=1)
    assert torch.equal(found, ids)


@pytest.mark.parametrize("name", ["llama", "bert"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("parameterization", ["cp", "lora"])
def test_gradient_checkpointing_gives_the_gradients_of_none(name: str, reentrant: bool, parameterization: str) -> None:
    model = make(name)
    adapter = ta.attach(model, ta.plan(model, method=parameterization, rank=2), seed=0)
    perturb(adapter)
    expected = gradients(model.train(), adapter, **inputs(name))
    checkpoint_layers(model, reentrant)
    found = gradients(model, adapter, **inputs(name))
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-6, atol=1e-6 * float(gradient.abs().max()))


def test_a_model_on_a_device_map_is_adapted() -> None:
    expected = attached()[0](**inputs("llama")).logits
    model = accelerate.dispatch_model(make("llama", torch.float32), {"": "cpu"}, force_hooks=True)
    perturb(ta.attach(model, ta.plan(model, LAYOUT, "cp", 4), seed=0))
    assert hasattr(model.model.layers[0].self_attn.q_proj.base, "_hf_hook")
    torch.testing.assert_close(model(**inputs("llama")).logits, expected)  # by another way, as layers have hooks


def test_offloaded_layers_are_refused() -> None:
    model = accelerate.cpu_offload(make("llama", torch.float32), execution_device="cpu")
    with pytest.raises(ta.TensorAdaptError, match=r"q_proj is offloaded by accelerate.*device_map"):
        ta.attach(model, ta.plan(model, LAYOUT, "cp", 4))
    assert not hasattr(model, "tensoradapt")
