"""A library of adapters as one tensor: its errors against dense arrays, what is in memory, and one adapter more."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import inputs, make

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.compression import core, library
from tensoradapt.compression.compress import Compressed, compress
from tensoradapt.compression.sources import TrainedUpdates
from tensoradapt.errors import TensorAdaptError

LAYOUT = "task layer proj : out : in"
Library = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]


@pytest.fixture(scope="module")
def sites() -> ta.sites.Sites:
    return ta.find_sites(make("bert"))


def adapters(sites: Any, n: int = 5, width: int = 3, noise: float = 0.0) -> Library:
    """Adapters of unequal ranks whose rows and columns lie in spaces that all share."""
    g = np.random.default_rng(0)
    rows, cols = (np.linalg.qr(g.standard_normal((n, width)))[0] for n in (sites[0].out, sites[0].in_))
    made: Library = {}
    for i in range(n):
        made[f"a{i}"] = {}
        for site in sites:
            a, b = g.standard_normal((1 + i % 2, width)) @ cols.T, rows @ g.standard_normal((width, 1 + i % 2))
            more = noise * g.standard_normal(a.shape), noise * g.standard_normal(b.shape)
            made[f"a{i}"][site.name] = (a + more[0], b + more[1])
    return made


def dense(given: Library) -> dict[tuple[str, str], np.ndarray]:
    return {(name, site): b @ a for name, own in given.items() for site, (a, b) in own.items()}


def approximation(result: Compressed) -> dict[tuple[str, str], np.ndarray]:
    """Each adapter's matrices from the parameterization's own oracle, sliced by hand."""
    (group,), (factors,) = result.plan.groups, result.factors
    layout = group.network.layout
    tensor = parameterizations.get(result.plan.parameterization).oracle(layout, factors)
    found = {}
    for number, name in enumerate(result.plan.spec.tasks):
        for member in group.members:
            at = {**member.at, "task": number}
            matrix = tensor[tuple(at[mode.name] for mode in layout.index)].reshape(layout.out, layout.in_)
            found[name, member.site.name] = matrix.T if member.transposed else matrix
    return found


def error(found: Mapping[Any, np.ndarray], expected: Mapping[Any, np.ndarray], of: str = "") -> float:
    keys = [key for key in expected if not of or of in key]
    left = math.hypot(*(np.linalg.norm(found[key] - expected[key]) for key in keys))
    return left / math.hypot(*(np.linalg.norm(expected[key]) for key in keys))


@pytest.mark.parametrize("layout", [LAYOUT, "task : out : in", "layer task proj : head dim : model"])
@pytest.mark.parametrize("family", ["cp", "tucker", "tensor_train"])
def test_the_errors_are_those_of_the_dense_arrays(sites: Any, family: str, layout: str) -> None:
    some = sites[:1] if layout.startswith("task :") else sites
    given = {name: {s.name: own[s.name] for s in some} for name, own in adapters(sites, noise=0.1).items()}
    result = compress(given, some, layout, family, 3)
    found, expected = approximation(result), dense(given)
    assert result.error == pytest.approx(error(found, expected), rel=1e-9) and 0.01 < result.error < 1
    assert list(result.task_errors) == list(given) == list(result.plan.spec.tasks)
    for name in given:
        assert result.task_errors[name] == pytest.approx(error(found, expected, name), rel=1e-9)
    for site in some:
        assert result.site_errors[site.name] == pytest.approx(error(found, expected, site.name), rel=1e-9)


def test_shared_directions_are_found_exactly_and_an_adapter_costs_its_own_numbers(sites: Any) -> None:
    given = adapters(sites, width=2)
    result = compress(given, sites, LAYOUT, "tucker", {"out": 2, "in": 2, "task": 5, "layer": 3, "proj": 4})
    assert result.error < 1e-12 and max(result.task_errors.values()) < 1e-12
    assert result.n_params_each == 5 and "5 adapters with 5 numbers of their own each" in str(result)
    stack = np.stack([np.stack([b @ a for a, b in own.values()]) for own in given.values()])
    singular = np.linalg.svd(stack.reshape(len(given), -1), compute_uv=False)
    np.testing.assert_allclose(result.task_spectra[0], singular, rtol=1e-10)
    assert result.n_source_params == sum(a.size + b.size for own in given.values() for a, b in own.values())


def test_a_core_that_would_be_too_large_is_cut_and_the_error_counts_what_is_outside(
    sites: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = adapters(sites, noise=0.3)
    monkeypatch.setattr(core, "LIBRARY", 8 * 5 * 12 * 4**2)  # four directions of each side
    result = compress(given, sites, LAYOUT, "tucker", {"out": 4, "in": 4, "task": 5, "layer": 3, "proj": 4})
    assert "out 30 cut to 4, in 30 cut to 4, which leaves out" in str(result)
    assert result.error == pytest.approx(error(approximation(result), dense(given)), rel=1e-9)
    with pytest.raises(TensorAdaptError, match=r"max_error=0\.01 is not reached"):
        compress(given, sites, LAYOUT, "tucker", max_error=0.01)  # by the core alone it would be
    monkeypatch.setattr(core, "LIBRARY", 100)
    with pytest.raises(TensorAdaptError, match=r"stack of 5 adapters .* GiB, and .* are used at most; give whole"):
        compress(given, sites, LAYOUT, "tucker", 2)


# Folders


def saved(folder: Path, names: str = "abc", rank: int = 2, projections: Any = ("q", "v")) -> list[Path]:
    """LoRA folders of one model, each with factors of its own."""
    for i, name in enumerate(names):
        model = make("bert")
        adapter = ta.attach(model, ta.plan(model, method="lora", rank=rank + i, projections=projections, train=()))
        for parameter in adapter.parameters():
            torch.nn.init.normal_(
                parameter, std=0.2, generator=torch.Generator().manual_seed(100 * i + parameter.numel())
            )
        ta.export_lora(model, folder / name)
    return [folder / name for name in names]


def test_folders_are_read_one_at_a_time_and_become_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, alive = saved(tmp_path), list[Any]()
    read = library.read

    def watched(*args: Any) -> TrainedUpdates:
        found = read(*args)
        gc.collect()  # a tracer of lines holds the frames of a call in a cycle
        assert sum(one() is not None for one in alive) <= 1  # the one before may be in use until the next is there
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(library, "read", watched)
    result = compress(folders, make("bert"), LAYOUT, "tucker", 4)
    assert result.plan.spec.tasks == ("a", "b", "c") and len(alive) >= 12
    assert result.n_source_params == sum(
        value.numel() for folder in folders for value in load_file(folder / "adapter_model.safetensors").values()
    )


def test_an_attached_library_switches_mixes_exports_and_is_saved(tmp_path: Path) -> None:
    folders = saved(tmp_path)
    result = compress(folders, make("bert"), LAYOUT, "tucker", {"task": 3, "layer": 3, "proj": 2, "out": 12, "in": 12})
    assert result.error < 1e-6
    model, batch = make("bert"), inputs("bert")
    adapter = result.attach(model)
    outputs = []
    for name in ("a", "b", "c"):
        adapter.select(task=name)
        outputs.append(model(**batch).logits)
        ta.export_lora(model, tmp_path / f"{name}-again", task=name)
        one, two = (
            compress(tmp_path / folder, make("bert"), ": out : in", "lora", 4) for folder in (name, f"{name}-again")
        )
        for values, again in zip(one.factors, two.factors, strict=True):
            np.testing.assert_allclose(values["B"] @ values["A"], again["B"] @ again["A"], atol=1e-5)
    n = len(batch["input_ids"])
    adapter.select(task=["c", "a"][:n])
    mixed = model(**batch).logits
    torch.testing.assert_close(mixed[0], outputs[2][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[1], outputs[0][1], atol=1e-5, rtol=0)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-3)
    adapter.save(tmp_path / "library")
    loaded = make("bert")
    ta.load(loaded, tmp_path / "library").select(task="b")
    torch.testing.assert_close(loaded(**batch).logits, outputs[1], atol=1e-6, rtol=0)


# One adapter more


@pytest.mark.parametrize("family", ["tucker", "cp", "tensor_train"])
@pytest.mark.parametrize("layout", [LAYOUT, "task layer proj : head dim : model"])
def test_an_adapter_more_is_the_best_in_the_bases_and_the_others_stay(sites: Any, family: str, layout: str) -> None:
    given = adapters(sites, n=6, noise=0.1)
    new = given.pop("a5")
    made = compress(given, sites, layout, family, 3)
    result = made.with_adapter("new", new)
    before, after = approximation(made), approximation(result)
    for key in before:
        np.testing.assert_allclose(after[key], before[key], atol=1e-12)
    expected = dense({"new": new})
    assert result.task_errors["new"] == pytest.approx(error(after, expected), rel=1e-9)
    assert result.error == pytest.approx(error(after, dense({**given, "new": new})), rel=1e-9)
    assert result.plan.spec.tasks[-1] == "new" and result.n_params == made.n_params + made.n_params_each
    # by the normal equations no move of its own numbers makes it smaller
    (group,), (factors,) = result.plan.groups, result.factors
    own = next(f for f in group.network.factors if "task" in f.labels)
    at = own.labels.index("task")
    g = np.random.default_rng(2)
    for _ in range(3):
        moved = {name: value.copy() for name, value in factors.items()}
        row = np.moveaxis(moved[own.name], at, 0)[-1]
        row += 1e-4 * np.linalg.norm(row) * g.standard_normal(row.shape)
        assert error(approximation(replace(result, factors=(moved,))), expected) >= result.task_errors["new"]
    model = make("bert")
    result.attach(model).select(task="new")
    assert model(**inputs("bert")).logits.isfinite().all()


def test_what_cannot_be_added_is_refused(sites: Any) -> None:
    given = adapters(sites)
    made = compress(given, sites, LAYOUT, "tucker", 2)
    with pytest.raises(TensorAdaptError, match="the library has an adapter 'a1'; expected"):
        made.with_adapter("a1", given["a1"])
    with pytest.raises(TensorAdaptError, match=r"adapter 'new': the mapping and the sites are not the same"):
        made.with_adapter("new", dict(list(given["a1"].items())[1:]))
    alone = compress(given["a1"], sites, "layer proj : out : in", "tucker", 2)
    with pytest.raises(TensorAdaptError, match="this is no library, as it was made of one adapter"):
        alone.with_adapter("new", given["a1"])
    spread = compress(given, sites, LAYOUT, "tucker", 2, options={"only": ("out", "in")})
    assert spread.n_params_each == 3 * 4 * 4
    assert spread.with_adapter("new", given["a1"]).task_errors["new"] == pytest.approx(spread.task_errors["a1"])


# What is refused


def test_adapters_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    folders, model = saved(tmp_path), make("bert")
    for given, says in (
        ([folders[0], folders[0]], r"is in the library twice; leave one out"),
        ([folders[0], tmp_path / "b" / ".." / "a"], r"is in the library twice"),
        ([folders[0]], r"a library is of two adapters or more, and 1 can be read"),
        ([folders[0], 7], r"a list of adapters has 7; expected paths of LoRA folders, or a mapping"),
        ({"x": folders[0], "y": tmp_path / "none"}, r"adapter 'y': .*none"),
    ):
        with pytest.raises(TensorAdaptError, match=says):
            compress(given, model, LAYOUT, "tucker", 2)
    (other,) = saved(tmp_path / "other", "a", projections=("q", "k"))
    with pytest.raises(TensorAdaptError, match=r"both called 'a'; give a mapping of names"):
        compress([folders[0], other], model, LAYOUT, "tucker", 2)
    with pytest.raises(TensorAdaptError, match=r"adapter 'y': .*sites without a LoRA module: .*value"):
        compress({"x": folders[0], "y": other}, model, LAYOUT, "tucker", 2)
    for layout, shown in (("layer proj : out : in", "'layer proj : out : in'"), (None, "None")):
        with pytest.raises(TensorAdaptError, match=rf"3 adapters and layout={shown} were given; .*'task layer proj"):
            compress(folders, model, layout, "tucker", 2)
    with pytest.raises(TensorAdaptError, match="budget"):
        compress(folders, model, LAYOUT, "tucker", budget=10)


def test_adapters_that_know_of_two_base_weights_are_refused() -> None:
    models = [make("bert"), make("bert"), make("bert")]
    with torch.no_grad():
        next(p for name, p in models[2].named_parameters() if "query.weight" in name).add_(1.0)
    given = {name: ta.attach(model, "lora", rank=1) for name, model in zip("abc", models, strict=True)}
    known = "adapter 'a' is of base weights with hash [0-9a-f]{12} and 'c' of others"
    with pytest.raises(TensorAdaptError, match=known):
        compress(given, None, LAYOUT, "tucker", 2)
    del given["c"]
    assert compress(given, None, LAYOUT, "tucker", 2).plan.spec.tasks == ("a", "b")


def test_a_damaged_one_is_named_and_the_rest_go_on_if_asked(tmp_path: Path) -> None:
    folders = saved(tmp_path, "abcd")
    tensors = load_file(folders[1] / "adapter_model.safetensors")
    key = next(iter(tensors))
    save_file({**tensors, key: torch.full_like(tensors[key], math.nan)}, folders[1] / "adapter_model.safetensors")
    with (folders[2] / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(TensorAdaptError, match=r"adapter 'b': .* has non-finite entries; the training has diverged"):
        compress(folders, make("bert"), LAYOUT, "tucker", 2)
    result = compress(folders, make("bert"), LAYOUT, "tucker", 2, damaged="skip")
    assert result.plan.spec.tasks == ("a", "d") and [text[:11] for text in result.left_out] == [
        "adapter 'b'",
        "adapter 'c'",
    ]
    assert "left out: adapter 'b'" in str(result) and ", and 1 more" in str(result)
    with pytest.raises(TensorAdaptError, match=r"and 1 can be read; the first that cannot: adapter 'b'"):
        compress(folders[:3], make("bert"), LAYOUT, "tucker", 2, damaged="skip")
