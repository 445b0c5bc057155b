"""The plug-ins of ms-swift, LLaMA-Factory and Axolotl train what a TensorConfig says, or say what is missing.

The trainers themselves are not installed here: they ask for an older PEFT. `.ci/trainers.sh` trains in two of them, and
what was run besides is in docs/results/performance.md.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from support.models import inputs, make, perturb

import tensoradapt as ta
from tensoradapt.extras.axolotl import TensorPlugin, config_of
from tensoradapt.extras.llama_factory import checked, launch, replaced
from tensoradapt.extras.ms_swift import register
from tensoradapt.integrations.peft import TensorConfig

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "trainers"
CONFIG = TensorConfig(task_type="CAUSAL_LM", rank=3, target_modules=["q_proj", "v_proj"])


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1")


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch, installed: None) -> ModuleType:
    """The three names of ms-swift that the plug-in uses."""
    module = ModuleType("swift")
    module.PeftTuner, module.tuners_map, module.callbacks_map = object, {}, {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swift", module)
    return module


def trained(model: torch.nn.Module) -> int:
    """Numbers that have gradients, all of which are the adapter's."""
    named = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert all("tensoradapt_bank" in name for name in named)
    return sum(named.values())


def planned(model: Any) -> int:
    return model.base_model.tensoradapt_bank["default"].plan.n_params


@pytest.mark.parametrize(
    ("package", "used"),
    [("ms-swift", lambda: register(CONFIG)), ("llamafactory", lambda: launch(CONFIG)), ("axolotl", TensorPlugin)],
)
def test_a_missing_trainer_is_named_with_what_to_install(
    package: str, used: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ta.TensorAdaptError, match=f'needs `{package}`, .* run pip install {package}, .* "peft>=0.21"'):
        used()


def test_ms_swift_trains_the_registered_config(swift: ModuleType) -> None:
    register(CONFIG)
    options = SimpleNamespace(lora_rank=64, target_modules=["all-linear"])  # not read
    first, second = (swift.tuners_map["tensoradapt"].prepare_model(options, make("llama")) for _ in range(2))
    expected = get_peft_model(make("llama"), TensorConfig(**asdict(CONFIG) | {"peft_type": None}))  # type: ignore[arg-type]
    assert trained(first) == trained(second) == planned(expected)
    assert first.peft_config["default"].to_dict() == expected.peft_config["default"].to_dict()
    assert first.peft_config["default"] is not second.peft_config["default"] and CONFIG.base_model_name_or_path is None
    assert type(swift.callbacks_map["equal_steps"](None, None)).__name__ == "EqualSteps"


GIVEN = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ["down_proj"], "inference_mode": False}
GIVEN |= {"use_dora": False, "use_rslora": False, "modules_to_save": None, "task_type": TaskType.CAUSAL_LM}


def test_llama_factory_gets_the_config_in_place_of_its_own() -> None:
    assert replaced(CONFIG, GIVEN) == CONFIG and replaced(CONFIG, GIVEN) is not CONFIG
    config = TensorConfig(rank=3, target_modules=["q_proj", "v_proj"])
    assert replaced(config, GIVEN) == CONFIG
    assert replaced(config, {**GIVEN, "modules_to_save": {"lm_head"}}).modules_to_save == ["lm_head"]
    with pytest.raises(ta.TensorAdaptError, match="TensorConfig has no use_dora; give rule="):
        replaced(CONFIG, {**GIVEN, "use_dora": True})


LLAMA_FACTORY = {
    "__init__": "",
    "launcher": "def launch(): raise SystemExit('launched')",
    "model/__init__": "import transformers_patched",  # as TRL fails that is loaded before the patch
    "model/adapter": "def init_adapter(*given): ...",
    "model/loader": "",
    "train/__init__": "",
    "train/tuner": """
import sys, types
sys.modules["transformers_patched"] = types.ModuleType("transformers_patched")
from llamafactory import model

def run_exp(callbacks):
    raise SystemExit(f"trained with {len(callbacks)} callbacks")
""",
}


@pytest.mark.parametrize(("command", "said"), [("train", "trained with 1 callbacks"), ("export", "launched")])
def test_llama_factory_patches_transformers_before_anything_loads_trl(
    command: str, said: str, tmp_path: Path, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in LLAMA_FACTORY.items():
        file = tmp_path / "llamafactory" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["launcher.py", command, "x.yaml"])
    before = set(sys.modules)
    try:
        with pytest.raises(SystemExit, match=said):
            launch(CONFIG, object())  # type: ignore[arg-type]
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]


def test_axolotls_block_is_a_config() -> None:
    assert config_of({"r": 3, "target_modules": ["q_proj", "v_proj"], "equal_steps": True}) == CONFIG
    assert config_of({"task_type": "SEQ_CLS"}).task_type == "SEQ_CLS"
    with pytest.raises(ta.TensorAdaptError, match="tensoradapt: has 'ranks'; did you mean \"rank\""):
        config_of({"ranks": 3})
    with pytest.raises(ta.TensorAdaptError, match="TensorConfig has no use_dora; give rule="):
        config_of({"use_dora": True})


def test_axolotl_merges_as_peft_does_and_takes_equal_steps_where_asked(installed: None) -> None:
    plugin, block = TensorPlugin(), {"equal_steps": True}
    for name, merged, n in (("tensoradapt", "legacy", 1), ("lora", None, 0)):
        cfg = {"adapter": name, "merge_method": None}
        plugin.register(cfg)
        assert cfg["merge_method"] == merged
        assert len(plugin.add_callbacks_post_trainer(SimpleNamespace(adapter=name, tensoradapt=block), None)) == n
    assert not plugin.add_callbacks_post_trainer(SimpleNamespace(adapter="tensoradapt", tensoradapt=None), None)


def test_the_three_examples_train_the_same_adapter(swift: ModuleType) -> None:
    runpy.run_path(str(EXAMPLES / "ms_swift_adapter.py"))
    launcher = runpy.run_path(str(EXAMPLES / "llama_factory_adapter.py"))["config"]
    block = yaml.safe_load((EXAMPLES / "axolotl.yaml").read_text())["tensoradapt"]
    model = swift.tuners_map["tensoradapt"].prepare_model(None, make("llama"))
    assert launcher == config_of(block)
    expected = get_peft_model(make("llama"), launcher)
    assert model.peft_config["default"].to_dict() == expected.peft_config["default"].to_dict()


def test_axolotl_loads_what_the_block_says(installed: None, tmp_path: Path) -> None:
    plugin = TensorPlugin()
    cfg = SimpleNamespace(adapter="tensoradapt", tensoradapt={"rank": 3, "target_modules": ["q_proj", "v_proj"]})
    cfg.lora_model_dir = None
    model, _ = plugin.load_adapter(make("llama"), cfg) or (None, None)
    assert isinstance(model, PeftModel) and trained(model) == planned(model)
    assert plugin.load_adapter(make("llama"), cfg, config_only=True) == (None, CONFIG)
    assert plugin.load_adapter(make("llama"), SimpleNamespace(adapter="lora")) is None
    perturb(model.base_model.tensoradapt_bank["default"])  # type: ignore[operator, union-attr, index]
    model.save_pretrained(str(tmp_path))
    cfg.lora_model_dir = str(tmp_path)
    loaded, _ = plugin.load_adapter(make("llama"), cfg, inference=True) or (None, None)
    assert loaded is not None and trained(loaded) == 0
    batch = inputs("llama")
    assert torch.equal(loaded.eval()(**batch).logits, model.eval()(**batch).logits)


def test_llama_factory_trains_nothing_else_instead() -> None:
    base = make("llama")
    lora = get_peft_model(make("llama"), LoraConfig(target_modules=["q_proj"]))  # type: ignore[arg-type]
    ours = get_peft_model(make("llama"), replaced(CONFIG, GIVEN))  # type: ignore[arg-type]
    for model, what in ((base, "no adapter"), (lora, "a LoraConfig")):
        prepare = checked(lambda *_, model=model: model)
        assert prepare(None, base, None, None, False) is model
        with pytest.raises(ta.TensorAdaptError, match=f"this run would train {what}, not the TensorConfig"):
            prepare(None, base, None, None, True)
    assert checked(lambda *_: ours)(None, base, None, None, True) is ours
