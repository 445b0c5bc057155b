"""A call that changes a model does all of its work, or leaves the model as it was: whichever operation fails."""

import copy
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from harness.faulty_operations import every_fault, state
from support.copies import made_once
from transformers import BertConfig, BertForSequenceClassification

import tensoradapt as ta

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS = torch.arange(8).view(2, 4)
LORA, TRAIN = {"layout": ": out : in", "method": "lora", "rank": 2}, ("classifier",)


@made_once
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_attention_heads=4, num_hidden_layers=2, intermediate_size=24, vocab_size=40,
        max_position_embeddings=16,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def randomised(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for adapter in ta.adapters(model).values():
            for parameter in adapter.parameters():
                parameter.normal_(std=0.1)
    return model


def one(**how):
    model = bert()
    ta.attach(model, ta.plan(model, **{**LORA, "train": TRAIN, **how}))
    return randomised(model)


def two():
    model = bert()
    ta.attach(model, ta.plan(model, **LORA, train=TRAIN), name="a")
    ta.attach(model, ta.plan(model, "layer proj : out : in", "cp", 3, train=TRAIN), name="b")
    return randomised(model)


def attach(plan, model=bert, **more):
    def ready():
        base = model()
        made = ta.plan(base, **plan)
        return base, None, lambda: ta.attach(base, made, name="new", **more)

    return ready


def on(model, call, *before):
    def ready():
        made = model()
        for first in before:
            first(made)
        return made, None, lambda: call(made)

    return ready


def reduced():
    model = one(layout="layer proj : out : in", method="cp", rank=4)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    model(IDS, labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    return model, optimizer, lambda: ta.reduce_rank(model, optimizer, rank=2)


def loaded(folder, model=bert, **more):
    def ready():
        base = model()
        return base, None, lambda: ta.load(base, folder, strict=False, **more)

    return ready


def injected():
    from peft import get_peft_model

    from tensoradapt.integrations.peft import TensorConfig

    tuned = get_peft_model(bert(), TensorConfig(method="cp", layout="layer proj : out : in", rank=2))
    return tuned, None, lambda: tuned.add_adapter("new", TensorConfig(rank=3, layout=": out : in"))


def tuned(call, *before):
    """A call of PEFT's tuner around a model with an adapter."""

    def ready():
        from peft import get_peft_model

        from tensoradapt.integrations.peft import TensorConfig

        settings = {"method": "cp", "layout": "layer proj : out : in", "rank": 2, "init_weights": False}
        model = get_peft_model(bert(), TensorConfig(**settings))
        for first in before:
            first(model.base_model)
        return model, None, lambda: call(model.base_model)

    return ready


def batches():
    return [{"input_ids": IDS, "labels": torch.tensor([0, 1])}]


CALLS = {
    "attach": attach({**LORA, "train": TRAIN}),
    "attach cp": attach({"layout": "layer proj : out : in", "method": "cp", "rank": 2}),
    "attach dora": attach({**LORA, "rule": "dora"}),
    "attach pissa": attach({"method": "pissa", "paper": True, "rank": 2}),
    "attach gradient": attach({**LORA, "start": "gradient"}, batches=batches()),
    "attach second": attach({**LORA, "train": TRAIN}, one),
    "use": on(two, lambda model: ta.use(model, "a")),
    "use samples": on(one, lambda model: ta.use(model, samples=["default", None])),
    "use shares": on(lambda: two_without_heads(), lambda model: ta.use(model, {"a": 0.5, "b": 2})),
    "merge": on(one, ta.merge),
    "merge for good": on(one, lambda model: ta.merge(model, keep=False)),
    "merge dora": on(lambda: one(rule="dora"), ta.merge),
    "merge and unload": on(one, ta.merge_and_unload),
    "unmerge": on(one, ta.unmerge, ta.merge),
    "detach": on(one, ta.detach),
    "detach merged": on(one, ta.detach, ta.merge),
    "detach one of two": on(two, lambda model: ta.detach(model, "b")),
    "reduce_rank": reduced,
    "inject": injected,
    "peft merge": tuned(lambda tuner: tuner.merge_adapter()),
    "peft unmerge": tuned(lambda tuner: tuner.unmerge_adapter(), lambda tuner: tuner.merge_adapter()),
    "peft merge and unload": tuned(lambda tuner: tuner.merge_and_unload()),
    "compress": on(
        one,
        lambda model: ta.compress(
            ta.adapters(model)["default"], layout="layer proj : out : in", method="cp", budget=300
        ),
    ),
}
FILES = {
    "load": lambda folder: loaded(folder),
    "load second": lambda folder: loaded(folder, one, name="new"),
    "restore": lambda folder: on(lambda: drifted(folder), lambda model: ta.restore(model, folder)),
    "export": lambda folder: on(
        lambda: one(train=()), lambda model: ta.export_lora(model, Path(mkdtemp(dir=folder.parent)) / "exported")
    ),
}


def two_without_heads():
    model = bert()
    for name in ("a", "b"):
        ta.attach(model, ta.plan(model, **LORA, train=()), name=name)
    return randomised(model)


def drifted(folder):
    model = bert()
    ta.load(model, folder)
    return randomised(model)


def faults_of(call, tmp_path, step):
    if call in CALLS:
        return list(every_fault(CALLS[call], step))
    folder = tmp_path / "saved"
    ta.adapters(one())["default"].save(folder)
    return list(every_fault(FILES[call](folder), step))


@pytest.mark.thorough
@pytest.mark.parametrize("call", [*CALLS, *FILES])
def test_a_call_whose_operation_fails_leaves_the_model_as_it_was(call, tmp_path):
    tried = faults_of(call, tmp_path, 23)
    assert tried and not [(n, changed) for n, changed in tried if changed]


@pytest.mark.nightly
@pytest.mark.parametrize("call", [*CALLS, *FILES])
def test_a_call_leaves_the_model_as_it_was_whichever_operation_fails(call, tmp_path):
    tried = faults_of(call, tmp_path, 2)  # 5,300 in all; with 1, all 10,600
    print(f"{call}: {len(tried)} operations failed, each once")
    assert tried and not [(n, changed) for n, changed in tried if changed]


def test_the_state_of_a_model_sees_every_kind_of_change():
    model = one()
    before = state(model)
    assert before == state(model)
    changed = {
        "module": lambda m: m.set_submodule("bert.pooler.dense", torch.nn.Linear(16, 16)),
        "parameter": lambda m: m.classifier.weight.data.add_(1),
        "module classifier": lambda m: m.classifier.train(),
        "parameter classifier.bias": lambda m: m.classifier.bias.requires_grad_(False),
    }
    for key, change in changed.items():
        other = copy.deepcopy(model)
        start = state(other)
        change(other)
        assert any(k.startswith(key) for k in start if start[k] != state(other).get(k)), key
