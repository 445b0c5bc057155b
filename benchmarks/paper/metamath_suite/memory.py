"""The memory of a run in bytes: what the CUDA allocator reserved, or on a processor all that is resident."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import torch

from tensoradapt.lab.runs.provenance import peak_memory, reset_peak_memory

STATM = Path("/proc/self/statm")


class Memory:
    """Memory of a GPU since its making, or resident memory of the process; the making resets the peak."""

    def __init__(self, device: str) -> None:
        self.device, self.cuda = device, torch.device(device).type == "cuda"
        gc.collect()  # the model of a run before, which an error's frames may hold
        if self.cuda:
            torch.zeros(1, device=device)  # what CUDA itself needs is not the run's
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            reset_peak_memory()
        self.before = torch.cuda.max_memory_reserved(self.device) if self.cuda else 0

    def allocated(self) -> int:
        """Return what tensors take now."""
        return (torch.cuda.memory_allocated(self.device) if self.cuda else _resident()) - self.before

    def reserved(self) -> int:
        """Return what is held now for tensors."""
        return (torch.cuda.memory_reserved(self.device) if self.cuda else _resident()) - self.before

    def peak(self) -> int:
        """Return the most that was held."""
        return (torch.cuda.max_memory_reserved(self.device) if self.cuda else peak_memory()) - self.before

    def release(self) -> None:
        """Give unused memory of a GPU back, as PEFT's loop does every ten steps."""
        if self.cuda:
            torch.cuda.empty_cache()


def _resident() -> int:
    """Return the resident memory of this process; where the system does not say it, the peak."""
    if not STATM.exists():
        return peak_memory()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
