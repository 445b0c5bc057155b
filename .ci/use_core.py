"""Work with an installed tensoradapt that has its core dependencies alone; raises where something does not hold.

Planning runs in a process that cannot import torch; then torch and every public name are imported, and an adapter is
attached, trained, merged, saved, loaded, compressed and exported.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PLANS = """
import sys
from types import SimpleNamespace
sys.modules["torch"] = None
import tensoradapt as ta
sizes = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
config = SimpleNamespace(model_type="bert", **sizes)
assert ta.plan(config, layout="layer proj : head dim : model", method="cp", rank=8).n_params == 6880
"""
NAMES = "import torch, tensoradapt as ta; ta.plan, ta.attach, ta.fit"
LIGHT = f"{NAMES}; import sys; assert not {{'matplotlib', 'pandas'}} & set(sys.modules)"  # which take seconds


def main() -> None:
    """Run everything; print the import time."""
    for code in (PLANS, LIGHT):
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    more = statistics.median(seconds(NAMES) - seconds("import torch") for _ in range(5))
    print(f"     plan, attach and fit are imported in {more:.2f} s beside torch's own")
    with tempfile.TemporaryDirectory() as folder:
        adapted(Path(folder))
    subprocess.run([sys.executable, "-m", "tensoradapt.lab.cli.main", "methods"], check=True, capture_output=True)


def seconds(code: str) -> float:
    """How long the processor works on some code in a new process."""
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime


def adapted(folder: Path) -> None:
    """Take a plain torch encoder through training, merging, checkpoint, compression and export."""
    import torch

    import tensoradapt as ta

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 3).train()
    layout, batches = "layer proj : ff : model", [(torch.randn(8, 5, 32), torch.randn(8, 5, 32))] * 20
    plan = ta.plan(model, layout=layout, method="tucker", rank=4, projections=["up", "down"])
    adapter = ta.attach(model, plan, seed=0)
    fitted = ta.fit(model, batches, lr=1e-3, steps=20, loss=lambda m, pair: (m(pair[0]) - pair[1]).square().mean())
    assert fitted.losses[-1] < fitted.losses[0], fitted.losses
    adapter.save(folder / "adapter")
    x = batches[0][0]
    tuned = model.eval()(x)
    ta.merge(model)
    assert torch.allclose(model(x), tuned, atol=1e-5)
    ta.unmerge(model)
    ta.export_lora(model, folder / "lora")
    small = ta.compress(adapter, layout=layout, method="tensor_train", budget=2000)
    assert small.n_params <= 2000
    ta.detach(model)
    ta.load(model, folder / "adapter")
    assert torch.allclose(model(x), tuned, atol=1e-6)


if __name__ == "__main__":
    main()
