"""Quantised layers: adapted in the dtype they compute in, merged by quantising anew, and given back bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.models import perturb
from support.quantised_models import Two, X, four_bits, loaded, plain
from support.sweeping import one_thread
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.sites.site import Site

# both libraries try native kernels that a CPU has not, and warn or log of it
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
SITES = tuple(Site(f"layers.{i}", f"layers.{i}", (("layer", i), ("proj", "q")), 32, 64, ()) for i in range(2))


def eight_bits() -> nn.Module:
    from bitsandbytes.nn import Linear8bitLt

    return loaded(Two(lambda: Linear8bitLt(64, 32, has_fp16_weights=False)))


def torchao(config: str) -> nn.Module:
    from torchao import quantization

    model = plain().requires_grad_(False)
    quantization.quantize_(model, getattr(quantization, config)())
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], float, float]] = {
    # how it is made; how near its matrix is to what it computes; how much of an update is lost when it is merged
    "nf4": (lambda: four_bits("nf4"), 1e-5, 0.4),
    "fp4": (lambda: four_bits("fp4"), 1e-5, 0.6),
    "int8 of bitsandbytes": (eight_bits, 2e-2, 0.04),  # which rounds its inputs too
    "int8 of torchao": (lambda: torchao("Int8WeightOnlyConfig"), 1e-5, 0.04),
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with one_thread():
        yield


def adapted(name: str, **asked: object) -> tuple[nn.Module, ta.Adapter]:
    model = MODELS[name][0]()
    return model, ta.attach(model, ta.plan(SITES, "layer proj : out : in", "cp", 3, **asked))


@every_model
def test_the_matrix_is_what_the_layer_computes_with(name: str) -> None:
    model, near = MODELS[name][0](), MODELS[name][1]
    for _ in range(2):  # bitsandbytes keeps its codes elsewhere after the first pass
        for site, layer in zip(SITES, model.layers, strict=True):
            expected = layer(X) - layer.bias
            torch.testing.assert_close(X @ StoredMatrix.of(layer, site).read().T, expected, rtol=0, atol=near)


@every_model
def test_codes_count_as_the_numbers_that_they_stand_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, adapter = adapted(name)
    ta.print_trainable_parameters(model)
    whole = adapter.n_params + sum(p.numel() for p in plain().parameters())
    assert f"trainable params: {adapter.n_params:,d} || all params: {whole:,d} ||" in capsys.readouterr().out


@every_model
@pytest.mark.parametrize("rule", ["add", "dora", "hira"])
def test_an_adapter_adds_to_it_and_trains(name: str, rule: str) -> None:
    model, adapter = adapted(name, rule=rule)
    base = MODELS[name][0]()
    assert torch.equal(model(X), base(X))
    lengths = [m.detach().clone() for m in adapter.magnitudes]
    perturb(adapter, 0.2)
    with torch.no_grad():
        for magnitude, length in zip(adapter.magnitudes, lengths, strict=True):
            magnitude.copy_(length)
    matrices = [StoredMatrix.of(layer, site).read() for layer, site in zip(base.layers, SITES, strict=True)]
    summed = [w + adapter.delta(site) for w, site in zip(matrices, SITES, strict=True)]
    if rule == "hira":
        summed = [w + (s - w) * w / w.square().mean().sqrt() for w, s in zip(matrices, summed, strict=True)]
    if rule == "dora":
        summed = [
            w.norm(dim=1, keepdim=True) * s / s.norm(dim=1, keepdim=True) for w, s in zip(matrices, summed, strict=True)
        ]
    expected = torch.cat([X @ s.T + layer.bias for s, layer in zip(summed, base.layers, strict=True)], dim=-1)
    torch.testing.assert_close(model(X), expected, rtol=0, atol=3 * MODELS[name][1])
    model(X).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in adapter.parameters())


@every_model
def test_merging_quantises_anew_says_what_it_lost_and_is_undone_bit_for_bit(name: str) -> None:
    model, adapter = adapted(name)
    perturb(adapter, 0.3)
    before, on = [matrix.clone() for matrix in _matrices(model)], model(X)
    wanted = [w + adapter.delta(site) for w, site in zip(before, SITES, strict=True)]
    for _ in range(3):
        lost = ta.merge(model).lost
        for site, found, whole, old in zip(SITES, _matrices(model), wanted, before, strict=True):
            own = float((found - whole).norm() / (whole - old).norm())
            assert lost[site.module] == pytest.approx(own, rel=1e-4)
            assert 0 < own < MODELS[name][2]
        assert (model(X) - on).norm() / on.norm() < MODELS[name][2]
        ta.unmerge(model)
        assert all(torch.equal(found, old) for found, old in zip(_matrices(model), before, strict=True))
        assert torch.equal(model(X), on)


def _matrices(model: nn.Module) -> list[Tensor]:
    return [StoredMatrix.of(model.get_submodule(site.module).base, site).read() for site in SITES]


@every_model
def test_it_is_saved_loaded_exported_and_merged_for_good(name: str, tmp_path: Path) -> None:
    model, adapter = adapted(name)
    perturb(adapter, 0.3)
    adapter.save(tmp_path / "own")
    again = MODELS[name][0]()
    ta.load(again, tmp_path / "own")
    assert torch.equal(model(X), again(X))
    assert ta.export_lora(model, tmp_path / "lora").exact
    ta.merge(model, keep=False)
    merged = model(X)
    ta.detach(model)
    assert torch.equal(model(X), merged)
    assert type(model.layers[0].weight) is type(again.layers[0].base.weight)


def test_what_cannot_be_done_to_codes_is_refused() -> None:
    model = torchao("Float8WeightOnlyConfig")
    adapter = ta.attach(model, ta.plan(SITES, "layer proj : out : in", "cp", 3))
    perturb(adapter, 0.3)
    before = model(X)
    with pytest.raises(ta.TensorAdaptError, match=r"holds a Float8Tensor of torchao, which cannot be made anew"):
        ta.merge(model)
    assert torch.equal(model(X), before)
    plan = ta.plan(SITES, "layer proj : out : in", "cp", 3, start="gradient")
    with pytest.raises(ta.TensorAdaptError, match="bitsandbytes 4-bit layer, whose codes have no gradient"):
        ta.attach(four_bits("nf4"), plan, batches=[X], loss=lambda model, x: model(x).sum())


def packed(quant_type: str) -> nn.Module:
    """A 4-bit model as bitsandbytes leaves it after a pass in evaluation, on a processor with AVX-512 BF16."""
    from bitsandbytes.functional import _convert_weight_packed_for_cpu

    model = four_bits(quant_type)
    for layer in model.layers:
        layer.support_avx512bf16_for_cpu = True
        layer.weight.data, layer.weight.quant_state = _convert_weight_packed_for_cpu(
            layer.weight.data, layer.weight.quant_state
        )
    return model


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_a_packed_layer_is_read_as_what_it_computes_with_and_stays_packed(quant_type: str) -> None:
    layer, plain_layer = packed(quant_type).layers[0], four_bits(quant_type).layers[0]
    read, expected = (StoredMatrix.of(one, SITES[0]).read() for one in (layer, plain_layer))
    assert (read - expected).norm() < 4e-3 * expected.norm(), "but for maxima of blocks in bf16"
    assert layer.weight.quant_state.packing_format_for_cpu


def test_gradients_flow_through_layers_that_were_packed_before_attach_and_none_is_packed_after_it() -> None:
    model = packed("nf4")
    adapter = ta.attach(model, ta.plan(SITES, "layer proj : out : in", "cp", 3))
    perturb(adapter, 0.3)
    model.eval()(X)  # which would pack them again
    x = X.clone().requires_grad_()
    model.train()(x).sum().backward()
    whole = [StoredMatrix.of(model.layers[i].base, SITES[i]).read() + adapter.delta(SITES[i]) for i in range(2)]
    assert torch.allclose(x.grad, torch.cat(whole).sum(0).expand_as(x), atol=1e-5)
    ta.detach(model)
    assert all(layer.support_avx512bf16_for_cpu for layer in model.layers), "as it was"
