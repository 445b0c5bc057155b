"""LoRA folders that PEFT itself wrote are read as PEFT computes them; what is more than B A is refused by name."""

from __future__ import annotations

import json
import math
import os
import random
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import make
from torch import nn

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import LARGEST
from tensoradapt.lora.config import check_cost
from tensoradapt.lora.read_folder import read_lora

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:The following alpha_pattern keys did not match:RuntimeWarning",  # that is what the case is for
    "ignore:Adapter 'default'. 9 LoRA tensor.s. have invalid shape",  # lora_bias saves what it then finds odd
)
TARGETS = {
    "bert": ["query", "value", "intermediate.dense"],
    "gpt2": ["c_attn", "c_fc"],
    "llama": ["q_proj", "k_proj", "down_proj"],
}


def saved(family: str, path: Path, **options: Any) -> nn.Module:
    """PEFT's model with every A and B random, saved; the model is the reference."""
    config = peft.LoraConfig(
        **{"r": 3, "lora_alpha": 5, "target_modules": TARGETS[family], "fan_in_fan_out": family == "gpt2", **options}
    )
    model = peft.get_peft_model(make(family, torch.float32), config).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    model.save_pretrained(str(path))
    return model


def deltas(model: nn.Module) -> dict[str, torch.Tensor]:
    """PEFT's own updates as logical (out, in) matrices, by module."""
    layers = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "lora_A")}
    found = {n: layer.get_delta_weight("default").detach() for n, layer in layers.items()}
    return {n: d.T if layers[n].fan_in_fan_out else d for n, d in found.items()}


PATTERNS = {  # layer.2 matches nothing: a pattern is for the end of a name
    "bert": {
        "rank_pattern": {"query": 5},
        "alpha_pattern": {"layer.2": 9, "value": 7, "layer.1.intermediate.dense": 3},
    },
    "gpt2": {"rank_pattern": {"0.attn.c_attn": 2}, "alpha_pattern": {".*.1.attn.c_attn": 3}},
    "llama": {"rank_pattern": {"model.layers.1.self_attn.q_proj": 4, "k_proj": 2}, "alpha_pattern": {"k_proj": 9}},
}


@pytest.mark.parametrize("family", TARGETS)
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("patterns", [False, True])
def test_the_pairs_are_what_peft_computes(family: str, rslora: bool, patterns: bool, tmp_path: Path) -> None:
    model = saved(family, tmp_path, use_rslora=rslora, **(PATTERNS[family] if patterns else {}))
    expected, found = deltas(model), read_lora(tmp_path)
    assert found.keys() == expected.keys()
    for name, pair in found.items():
        torch.testing.assert_close(torch.from_numpy(pair.b @ pair.a), expected[name], rtol=1e-12, atol=1e-12)


def rewrite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file(dict(tensors), path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "sets use_dora=True; only plain LoRA"),
    "bias": ({"bias": "lora_only"}, "sets bias='lora_only'"),
    "lora_bias": ({"lora_bias": True}, "sets lora_bias=True"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changed the base weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_more_than_a_product_is_refused_by_name(name: str, tmp_path: Path) -> None:
    options, message = REFUSED[name]
    saved("bert", tmp_path, **options)
    with pytest.raises(TensorAdaptError, match=message):
        read_lora(tmp_path)


def damaged(tmp_path: Path, **changes: Any) -> Path:
    saved("bert", tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    return tmp_path / "adapter_model.safetensors"


def refuses(path: Path, message: str) -> None:
    with pytest.raises(TensorAdaptError, match=message):
        read_lora(path)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    refuses(
        tmp_path / "none", r"adapter_config.json cannot be read \(No such file.*expected a LoRA folder as PEFT saves"
    )
    path = damaged(tmp_path, peft_type="VERA")
    refuses(tmp_path, "peft_type 'VERA'; expected 'LORA'")
    damaged(tmp_path, use_qalora=True)
    refuses(tmp_path, "sets use_qalora=True")
    damaged(tmp_path, r=4)
    refuses(tmp_path, r"A \(3, 3[04]\) and B \(3[04], 3\); expected \(r, in\) and \(out, r\) with r = 4")
    damaged(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    refuses(tmp_path, r"has 15,\d+ bytes; expected 15,\d+, .* as its header says. It is truncated")
    (tmp_path / "adapter_config.json").write_text("{")
    refuses(tmp_path, "adapter_config.json is not JSON")


def test_pickled_tensors_are_never_read(tmp_path: Path) -> None:
    damaged(tmp_path).rename(tmp_path / "adapter_model.bin")
    refuses(tmp_path, "adapter_model.bin is there, but pickled files run code when read")
    (tmp_path / "adapter_model.bin").unlink()
    refuses(tmp_path, r"adapter_model.safetensors cannot be read \(No such file or directory\); the folder is damaged")


def test_tensors_that_are_no_pair_are_refused(tmp_path: Path) -> None:
    path = damaged(tmp_path)
    tensors = load_file(path)
    a, b = (f"base_model.model.bert.encoder.layer.0.attention.self.query.lora_{side}.weight" for side in "AB")
    rewrite(path, {**tensors, "base_model.model.classifier.weight": torch.ones(2)})
    refuses(tmp_path, "holds 'base_model.model.classifier.weight', which is not A or B")
    rewrite(path, {name: t for name, t in tensors.items() if name != b})
    refuses(tmp_path, "module 'bert.encoder.layer.0.attention.self.query' has no lora_B.weight")
    rewrite(path, {**tensors, b: tensors[b][:, :2].contiguous()})
    refuses(tmp_path, r"has A \(3, 30\) and B \(30, 2\)")
    rewrite(path, {**tensors, a: torch.full_like(tensors[a], math.nan)})
    refuses(tmp_path, "query' has non-finite entries")
    rewrite(path, {})
    refuses(tmp_path, "holds no tensors")


NAME = "base_model.model.layers.0.q_proj.lora_{}.weight"
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "peft_version": "0.21.2"}
Change = Callable[[Path], Any]


def lora(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(CONFIG))
    save_file({NAME.format("A"): torch.ones(2, 5), NAME.format("B"): torch.ones(6, 2)}, tensors_of(path))
    return path


def tensors_of(path: Path) -> Path:
    return path / "adapter_model.safetensors"


def config_text(text: str | bytes) -> Change:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda path: (path / "adapter_config.json").write_bytes(data)


def config_of(**changes: Any) -> Change:
    return config_text(json.dumps({**CONFIG, **changes}))


def header_of(change: Callable[[dict[str, Any]], None], data: bytes = b"\0" * 88) -> Change:
    """A file whose header is changed, with these bytes behind it."""

    def forged(path: Path) -> None:
        raw = tensors_of(path).read_bytes()
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        change(header)
        tensors_of(path).write_bytes(packed(json.dumps(header), data))

    return forged


def packed(text: str | bytes, data: bytes) -> bytes:
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changes: Any) -> Change:
    return header_of(lambda header: header[NAME.format("A")].update(changes))


def bytes_of(data: bytes) -> Change:
    return lambda path: tensors_of(path).write_bytes(data)


def grown(name: str, size: int = 2**40) -> Change:
    def grow(path: Path) -> None:
        with (path / name).open("ab") as file:
            file.truncate(size)  # sparse: nothing of it is on disk, and all of it would be in memory

    return grow


def terabyte(path: Path) -> None:
    """A file that is as large as its header says."""
    rows = 2**38 // 5
    entry(shape=[rows, 5], data_offsets=[0, rows * 20])(path)
    header = int.from_bytes(tensors_of(path).read_bytes()[:8], "little")
    grown("adapter_model.safetensors", 8 + header + rows * 20 + 48)(path)


def pipe(path: Path) -> None:
    (path / "adapter_config.json").unlink()
    os.mkfifo(path / "adapter_config.json")


def twice(path: Path) -> None:
    one = '{"dtype":"F32","shape":[2,5],"data_offsets":[0,40]}'
    name = NAME.format("A")
    tensors_of(path).write_bytes(packed(f'{{"{name}":{one},"{name}":{one}}}', b"\0" * 40))


DAMAGED: dict[str, tuple[Change, str]] = {
    "a config of a terabyte": (
        grown("adapter_config.json"),
        "adapter_config.json has more than 67,108,864 bytes, and no adapter_config.json has as many",
    ),
    "a config that is a pipe": (pipe, "adapter_config.json is not JSON"),
    "a config with a key twice": (config_text('{"r": 1, "r": 2}'), "key 'r' stands twice"),
    "a config with NaN": (config_text('{"peft_type": "LORA", "lora_alpha": NaN}'), "NaN is not a finite number"),
    "a config of brackets": (config_text("[" * 100_000), "nested 100000 deep, and at most 32"),
    "a config that is a list": (config_text("[]"), "has peft_type 'list'; expected 'LORA'"),
    "an unknown setting": (
        config_of(halved_config={"by": 2}),
        r"sets halved_config=\{'by': 2\}, which this version does not know, .* Update tensoradapt; or, .* take it out",
    ),
    "rank 0": (config_of(r=0), "has r=0; expected ranks of 1 or more"),
    "an alpha that is a text": (config_of(lora_alpha="4"), "has lora_alpha='4'; .* finite numbers as alpha"),
    "rslora that is a text": (config_of(use_rslora="false"), "has use_rslora='false'"),
    "patterns in a list": (config_of(rank_pattern=["q_proj"]), r"has rank_pattern=\['q_proj'\]"),
    "a pattern that is none": (config_of(rank_pattern={"(": 2}), r"has rank_pattern=\{'\(': 2\}; .*and patterns"),
    "a pattern that takes for ever": (config_of(rank_pattern={"(.*)*(.*)*x": 2}), "none of them of a group"),
    "a pattern of a page": (config_of(alpha_pattern={"q" * 501: 2}), "at most 500 characters"),
    "a pickle": (lambda path: torch.save({}, tensors_of(path)), "is a pickle, .* is never unpickled here"),
    "an empty file": (bytes_of(b""), "has 0 bytes; expected 8, .* It is truncated"),
    "an endless header": (bytes_of(b"\xff" * 7 + b"\0{}"), "its header has .* and at most 67,108,864 are read"),
    "a longer file": (grown("adapter_model.safetensors"), "has 1,099,511,627,776 bytes; expected .* as its header"),
    "a terabyte of tensors": (terabyte, r"lists tensors of 1,099,\S* bytes, and at most 34,359,738,368 are read"),
    "a header with a tensor twice": (twice, "the header of .* is not JSON .*stands twice"),
    "a tensor that is a number": (header_of(lambda h: h.update({NAME.format("A"): 3})), "has 3 for tensor"),
    "a shape that is a text": (entry(shape="25"), "for tensor 'base_m"),
    "integers": (entry(dtype="I32"), "has dtype 'I32'; expected one of F64, F32, F16, BF16"),
    "tensors that overlap": (
        header_of(lambda h: h[NAME.format("B")].update(data_offsets=[0, 48])),
        "is not a whole safetensors file",
    ),
    "an empty folder": (
        lambda path: [one.unlink() for one in path.iterdir()],
        r"adapter_config.json cannot be read \(No such file.*expected a LoRA folder as PEFT saves it",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_one_error_and_little_is_read(name: str, tmp_path: Path) -> None:
    change, message = DAMAGED[name]
    path = lora(tmp_path / "lora")
    assert list(read_lora(path)) == ["layers.0.q_proj"]
    change(path)
    tracemalloc.start()
    try:
        with pytest.raises(ta.TensorAdaptError, match=message) as error:
            read_lora(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * LARGEST
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 1200


def test_a_repeated_group_would_have_taken_for_ever(tmp_path: Path) -> None:
    """A pattern meets names that come from the file too, so the guard is needed."""
    path = lora(tmp_path / "lora")
    config_of(rank_pattern={"(a+)+b": 2})(path)
    save_file({NAME.format("A").replace("q_proj", "a" * 60): torch.ones(2, 5)}, tensors_of(path))
    with pytest.raises(ta.TensorAdaptError, match="rank_pattern"):
        read_lora(path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_any_flipped_bit_is_refused_or_changes_numbers_alone(name: str, tmp_path: Path) -> None:
    path = lora(tmp_path / "lora")
    whole, rng = (path / name).read_bytes(), random.Random(5)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (path / name).write_bytes(data)
        try:
            found = read_lora(path)
        except ta.TensorAdaptError:
            refused += 1
        else:
            assert {(pair.a.shape, pair.b.shape) for pair in found.values()} == {((2, 5), (6, 2))}
    assert refused > 40


def test_any_truncation_is_refused(tmp_path: Path) -> None:
    path = lora(tmp_path / "lora")
    whole = tensors_of(path).read_bytes()
    for length in range(len(whole)):
        tensors_of(path).write_bytes(whole[:length])
        with pytest.raises(ta.TensorAdaptError, match="It is truncated"):
            read_lora(path)


def test_patterns_that_could_take_minutes_are_refused_and_usual_ones_are_not() -> None:
    layers = [f"model.layers.{i}.self_attn.{x}_proj" for i in range(126) for x in "qkvo"]
    for keys in ({f"(.*.*.*)x{i}" for i in range(20)}, {"(.*.*.*)x0"}):
        with pytest.raises(ta.TensorAdaptError, match=r"could take minutes to match; expected fewer repeats"):
            check_cost({"rank_pattern": dict.fromkeys(keys, 1)}, ["a" * 441], Path("x"))
    check_cost({"rank_pattern": dict.fromkeys(layers, 2)}, layers, Path("x"))
    check_cost({"alpha_pattern": {".*.1.self_attn.q_proj": 3, ".*q_proj": 2}}, layers, Path("x"))
