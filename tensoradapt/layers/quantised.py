"""Read the matrix that a quantised linear layer computes with, and quantise a matrix in the layer's own way.

A layer is recognised by the class name of its weight, so that neither library is imported for models without it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

State = tuple[Any, ...]
PACKS = "support_avx512bf16_for_cpu"  # what tells a 4-bit layer of bitsandbytes to pack its weight in evaluation


@dataclass(frozen=True)
class Quantised:
    """A way in which a layer is quantised: how its matrix is read, stored and put back.

    ``matrix`` gives the (out, in) matrix in fp32. ``store`` quantises a matrix and is None where this is not known how.
    ``state`` returns everything that ``store`` replaces, and ``restore`` puts it back.
    """

    name: str
    matrix: Callable[[Any], Tensor]
    store: Callable[[Any, Tensor], None] | None
    state: Callable[[Any], State] = lambda module: (module.weight,)
    restore: Callable[[Any, State], None] = lambda module, state: setattr(module, "weight", state[0])


def _four_bits(module: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(*_in_order(module.weight)).float()


def _in_order(weight: Any) -> tuple[Tensor, Any]:
    """Return the codes of a 4-bit weight and how they are read; the weight stays as it is.

    bitsandbytes packs them in another order in the first pass in evaluation, on processors with AVX-512 BF16.
    """
    if not is_packed(weight):
        return weight.data, weight.quant_state
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    state = copy(weight.quant_state)
    state.original_nested = False  # packed, the maxima of blocks have no codes of their own
    return _convert_weight_packed_for_cpu_inverse(weight.data, state)


def is_packed(weight: Any) -> bool:
    """Say whether bitsandbytes packed a 4-bit weight; no gradient flows through such a layer."""
    return getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False)


def unpack(module: Any) -> None:
    """Put the codes of a 4-bit layer in order again; the maxima of its blocks stay rounded to bf16."""
    if is_packed(module.weight):
        module.weight.data, module.weight.quant_state = _in_order(module.weight)


def _store_four_bits(module: Any, matrix: Tensor) -> None:
    old = module.weight
    names = ("blocksize", "compress_statistics", "quant_type", "quant_storage")
    data = matrix.to("cpu", _in_order(old)[1].dtype)  # moving it to its device quantises it
    options = {name: getattr(old, name) for name in names}
    module.weight = type(old)(data, requires_grad=False, module=module, **options).to(old.device)


def _codes(module: Any) -> tuple[Tensor, Tensor]:
    """Return a weight's codes and the largest entry of each row, wherever bitsandbytes has them."""
    held = module.weight if module.weight.CB is not None else module.state  # the first forward pass moves them
    return held.CB, held.SCB


def _eight_bits(module: Any) -> Tensor:
    codes, largest = _codes(module)
    return codes.float() * (largest.float() / 127)[:, None]


def _store_eight_bits(module: Any, matrix: Tensor) -> None:
    old = module.weight
    module.weight = type(old)(matrix.to("cpu", torch.float16), requires_grad=False).to(old.device)
    module.state.CB = module.state.SCB = None


def _state_of_eight_bits(module: Any) -> State:
    return module.weight, module.weight.CB, module.weight.SCB, module.state.CB, module.state.SCB


def _restore_eight_bits(module: Any, state: State) -> None:
    module.weight, module.weight.CB, module.weight.SCB, module.state.CB, module.state.SCB = state


def _unpacked(module: Any) -> Tensor:
    return module.weight.dequantize().float()


def _store_int8(module: Any, matrix: Tensor) -> None:
    """Quantise with one scale for each row, or for each block of a row, and no zero points."""
    from torchao.quantization.granularity import PerGroup, PerRow

    old = module.weight
    size = old.block_size[-1]
    granularity = PerRow() if size == matrix.shape[1] else PerGroup(size)
    codes = type(old).from_hp(matrix.to(old.device, old.dtype), granularity, act_quant_kwargs=old.act_quant_kwargs)
    module.weight = nn.Parameter(codes, requires_grad=False)


FOUR_BITS = Quantised("bitsandbytes 4-bit", _four_bits, _store_four_bits)
EIGHT_BITS = Quantised("bitsandbytes 8-bit", _eight_bits, _store_eight_bits, _state_of_eight_bits, _restore_eight_bits)
INT8 = Quantised("torchao int8", _unpacked, _store_int8)
PACKED = Quantised("torchao", _unpacked, None)


def quantised(module: nn.Module) -> Quantised | None:
    """Say how a linear layer is quantised; None for any other layer, and for one that is not quantised yet."""
    weight = module._parameters.get("weight")
    if type(weight) is nn.Parameter:  # first, because torch.compile cannot trace the module names below
        return None
    name, library = type(weight).__name__, type(weight).__module__.split(".")[0]
    if library == "bitsandbytes":
        if name == "Params4bit":
            return FOUR_BITS if weight.quant_state is not None else None  # type: ignore[union-attr]
        codes = name == "Int8Params" and weight.dtype == torch.int8  # type: ignore[union-attr]
        return EIGHT_BITS if codes else None
    if library != "torchao" or not isinstance(module, nn.Linear):
        return None
    return INT8 if name == "Int8Tensor" and _is_symmetric(weight) else PACKED


def _is_symmetric(weight: Any) -> bool:
    """Say whether rows, or blocks of them, have a scale and no zero point, as ``store`` makes them."""
    points = weight.zero_point
    return weight.block_size[0] == 1 and weight.act_quant_kwargs is None and (points is None or not points.any())
