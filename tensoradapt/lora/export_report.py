"""What an export to LoRA wrote, and how far it is from the adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tensoradapt.text import align

SERVED = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values of vLLM's --max-lora-rank
WITHOUT_HEAD = (
    "the model has no head, and names are those of the model alone; to serve it in one with a head, such as "
    "...ForCausalLM, call export_lora(model, path, prefix={0!r}) (command line: --prefix {0})"
)


@dataclass(frozen=True)
class ExportResult:
    """One module: the rank of its own pair, before padding, and the relative Frobenius errors.

    ``truncation`` is 0 for an exact export, ``rounding`` what the dtype then changed.
    """

    module: str
    rank: int
    truncation: float
    rounding: float


@dataclass(frozen=True)
class LoraExport:
    """A LoRA folder: ``rank`` is its r, of all its pairs; bytes are those of the tensors.

    ``left_out``: what was trained besides and is not in the folder. ``held_as``: of a model without a head, whose own
    names were written, what models with a head call it; the ``prefix`` of an export for these.
    """

    path: Path
    rank: int
    dtype: str
    modules: tuple[ExportResult, ...]
    n_bytes_native: int
    n_bytes: int
    left_out: tuple[str, ...] = ()
    held_as: str = ""

    @property
    def max_lora_rank(self) -> int | None:
        """The ``--max-lora-rank`` that vLLM needs for it; None above the largest there is."""
        return max_lora_rank(self.rank)

    @property
    def exact(self) -> bool:
        """Whether nothing was truncated."""
        return not any(module.truncation for module in self.modules)

    def __str__(self) -> str:
        lines = [
            f"LoRA of {len(self.modules)} modules in {self.path}: r = lora_alpha = {self.rank}, {self.dtype}, "
            f"{'exact but for rounding' if self.exact else 'truncated'}",
            f"{self.n_bytes_native:,} bytes native, {self.n_bytes:,} exported "
            f"({self.n_bytes / self.n_bytes_native:.3g} times)",
            f"vLLM needs --max-lora-rank {self.max_lora_rank}"
            if self.max_lora_rank
            else f"vLLM takes ranks up to {SERVED[-1]}; export it with a smaller rank= to serve it there",
            *(f"left out: {what}" for what in self.left_out),
            *([WITHOUT_HEAD.format(self.held_as)] if self.held_as else ()),
        ]
        rows = [("module", "rank", "truncation error", "rounding error")]
        rows += [(m.module, str(m.rank), f"{m.truncation:.3g}", f"{m.rounding:.3g}") for m in self.modules]
        return "\n".join([*lines, "", *align(rows)])


def max_lora_rank(rank: int) -> int | None:
    """The smallest of vLLM's settings that a rank fits in; None above all of them."""
    return next((one for one in SERVED if one >= rank), None)
