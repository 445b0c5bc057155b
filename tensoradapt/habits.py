"""What people type by habit, from other libraries or by guess, and what to type here.

A name that is nowhere is answered with the closest one (``errors.did_you_mean``); these are the names that no
comparison of letters finds.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from tensoradapt.errors import TensorAdaptError, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")

# Other words for keys of files, keywords of functions and metrics: the name here, which is said where it is valid, or
# else the sentence that follows it. A field's own ``former`` names come first.
WORDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("train_size", "train_samples", "max_train_samples", "num_train_samples"), ("n_train",)),
    **dict.fromkeys(("n_samples", "num_samples", "max_samples"), ("n_train",)),
    "n_jobs": ("workers",),
    "report_to": ("track",),
    "resume": ("", "a sweep goes on by itself: run it again with the same folder"),
    "baseline": ("reference", 'an adapter has none; a sweep has reference=, and ta.compare(runs, reference="lora")'),
    **dict.fromkeys(
        ("dtype", "torch_dtype"),
        ("precision", 'factors are trained in float32; to compute in bfloat16: ta.fit(..., precision="bf16")'),
    ),
    **{
        word: ("", f'less of it is better, so take its negative, "{name}"')
        for word, name in {
            "mse": "neg_mean_squared_error",
            "rmse": "neg_root_mean_squared_error",
            "mae": "neg_mean_absolute_error",
        }.items()
    },
}
# endings of files that are not read, as of ``train="reviews.xlsx"``
FILES = dict.fromkeys(
    (".xlsx", ".xls"), "write it as .csv, or give rows in memory, as in train=pandas.read_excel({path!r})"
)
# modules of the package that are called as if they were functions, as in ``ta.spectra(adapter)``
MODULES = {
    "spectra": "ta.spectra.spectra(tensor, names), of an adapter with tensor = adapter.tensors[0].full() and "
    "names = adapter.tensors[0].network.layout.names"
}
# names of the package, as in ``ta.list_methods``
PACKAGE = {
    **dict.fromkeys(("list_methods", "list_parameterizations", "available_methods", "available"), "ta.methods()"),
    **dict.fromkeys(("write_report", "make_report", "save_report"), "ta.report(folder)"),
    **dict.fromkeys(("read_results", "load_results", "runs", "table"), "ta.results(folder)"),
    **dict.fromkeys(("summarize", "summary"), "ta.summarise(runs)"),
    **dict.fromkeys(("plot", "figures", "plot_frontier"), "ta.plots.frontier(runs)"),
    **dict.fromkeys(("Trainer", "finetune"), "ta.fit(model, batches, lr=..., steps=...)"),
    **dict.fromkeys(("get_peft_model", "inject_adapter", "wrap"), "ta.attach(model, method, rank=8)"),
    **dict.fromkeys(("LoRA", "Lora", "lora"), 'ta.attach(model, "lora", rank=8)'),
    **dict.fromkeys(("CP", "PARAFAC", "cp"), 'ta.attach(model, "cp", rank=8)'),
    **dict.fromkeys(("LoRTA", "lorta"), 'ta.attach(model, "lorta", rank=8)'),
    **dict.fromkeys(("Tucker", "tucker"), 'ta.attach(model, "tucker", rank=8)'),
    **dict.fromkeys(("TensorTrain", "TT", "tensor_train"), 'ta.attach(model, "tensor_train", rank=8)'),
    **dict.fromkeys(("VeRA", "Vera", "vera"), 'ta.attach(model, "vera", rank=8)'),
    **dict.fromkeys(("LoraConfig", "AdapterConfig", "Config"), "ta.AdapterSpec(method, rank=8)"),
    "TensorConfig": "from tensoradapt.integrations.peft import TensorConfig",
    **dict.fromkeys(("unload", "remove"), "ta.detach(model)"),
    **dict.fromkeys(("set_adapter", "set_adapters"), "ta.use(model, name)"),
    **dict.fromkeys(("save", "save_pretrained", "save_adapter"), "adapter.save(folder)"),
    **dict.fromkeys(("load_adapter", "PeftModel"), "ta.load(model, folder)"),
    **dict.fromkeys(("export", "to_lora"), "ta.export_lora(model, folder)"),
    **dict.fromkeys(("run", "run_sweep", "grid"), "ta.sweep(spec, folder)"),
    **dict.fromkeys(("load_model", "get_model", "model_path"), "AutoModel.from_pretrained(ta.model_folder(name))"),
    **dict.fromkeys(("get_adapter", "get_adapters", "attached"), "ta.adapters(model)"),
    **dict.fromkeys(("decompose", "factorize", "compress_lora"), "ta.compress(folder, model, layout, method, rank=8)"),
    **dict.fromkeys(
        ("count", "count_parameters", "count_params", "n_params", "num_parameters"),
        "ta.plan(model, method, rank=8).n_params",
    ),
    **dict.fromkeys(("reconstruct", "dense", "full"), "adapter.tensors[0].full()"),
    **dict.fromkeys(("recommend", "suggest"), "ta.choose(model, budget=...)"),
}
# attributes of an adapter, which does not know the model that it is attached to
ADAPTER = {
    **dict.fromkeys(("merge", "merge_adapter", "fold"), "ta.merge(model)"),
    **dict.fromkeys(("unmerge", "unmerge_adapter"), "ta.unmerge(model)"),
    "merge_and_unload": "ta.merge_and_unload(model)",
    **dict.fromkeys(("detach", "unload", "remove"), "ta.detach(model)"),
    **dict.fromkeys(("disable", "disable_adapter"), "with ta.disabled(model): ..."),
    **dict.fromkeys(("enable", "use", "set_adapter"), "ta.use(model, name)"),
    **dict.fromkeys(("save_pretrained", "save_to_disk"), "adapter.save(folder)"),
    **dict.fromkeys(("export", "export_lora", "to_lora"), "ta.export_lora(model, folder)"),
    **dict.fromkeys(
        ("print_trainable_parameters", "get_nb_trainable_parameters"), "ta.print_trainable_parameters(model)"
    ),
    **dict.fromkeys(("num_parameters", "num_params", "n_parameters", "count"), "adapter.n_params"),
    "summary": "print(adapter)",
    **dict.fromkeys(("fit", "train_on"), "ta.fit(model, batches, lr=..., steps=...)"),
    **dict.fromkeys(("attach", "inject"), "ta.attach(model, plan)"),
    **dict.fromkeys(("to_dict", "config", "rank", "method"), "adapter.plan.spec"),
    **dict.fromkeys(("factors", "weights"), "adapter.tensors[0].factors"),
    **dict.fromkeys(("get_delta_weight", "delta_weight", "deltas", "updates"), "adapter.delta(site)"),
    **dict.fromkeys(
        ("reconstruct", "dense", "full"), "adapter.tensors[0].full(), or of one matrix adapter.delta(site)"
    ),
    "scale": "adapter.plan.scale",
    "reduce_rank": "ta.reduce_rank(model, optimizer, rank=...)",
    "compress": "ta.compress(model, ...)",
}
# attributes of a factored tensor, as in ``adapter.tensors[0].dense``
TENSOR = dict.fromkeys(("dense", "reconstruct", "to_dense", "to_tensor"), "tensor.full()")
PLAN = {
    **dict.fromkeys(("attach", "apply", "build"), "ta.attach(model, plan)"),
    **dict.fromkeys(("summary", "show", "table", "describe"), "print(plan)"),
    **dict.fromkeys(("to_dict", "to_json", "asdict", "config"), "dataclasses.asdict(plan.spec)"),
    **dict.fromkeys(("num_parameters", "num_params", "n_parameters", "count", "parameters", "size"), "plan.n_params"),
    **dict.fromkeys(("draw", "plot"), "ta.plots.network(plan)"),
    **dict.fromkeys(("layers", "modules", "targets", "target_modules"), "plan.sites"),
    **dict.fromkeys(("rank", "ranks"), "[group.rank for group in plan.groups]"),
    **dict.fromkeys(("tensors", "networks", "shapes"), "plan.groups"),
    **dict.fromkeys(("method", "layout", "budget", "projections"), "plan.spec"),
}
# commands, as in ``tensoradapt compare``
COMMANDS = {
    **dict.fromkeys(("compare", "table", "show", "summary"), "tensoradapt results FOLDER --compare"),
    **dict.fromkeys(("status", "progress", "ls"), "tensoradapt results FOLDER --status"),
    **dict.fromkeys(("list", "info", "describe"), "tensoradapt methods"),
    **dict.fromkeys(("run", "train", "fit", "tune", "grid"), "tensoradapt sweep SPEC"),
    **dict.fromkeys(("figure", "draw"), "tensoradapt plot FOLDER"),
    **dict.fromkeys(("convert", "merge", "to-lora"), "tensoradapt export"),
    **dict.fromkeys(("check", "env", "versions"), "tensoradapt doctor"),
}
# figures, as in ``ta.plots.pareto``
FIGURES = {
    **dict.fromkeys(("pareto", "scatter", "tradeoff", "efficiency"), "ta.plots.frontier(runs)"),
    **dict.fromkeys(("bar", "bars", "box", "forest"), "ta.plots.differences(runs)"),
    **dict.fromkeys(("loss", "losses", "training"), "ta.plots.learning(runs)"),
    **dict.fromkeys(("line", "lines", "rank", "ranks"), 'ta.plots.curves(runs, x="rank")'),
    **dict.fromkeys(("diagram", "layout", "plan"), "ta.plots.network(plan)"),
}
# options of figures that are matplotlib's
OPTIONS = {
    **dict.fromkeys(("path", "save", "file", "filename", "out"), "ax.figure.savefig(path)"),
    "title": "ax.set_title(text)",
    **dict.fromkeys(("logx", "xscale"), "ax.set_xscale(scale)"),
    "dpi": "ax.figure.savefig(path, dpi=dpi)",
}
_IN_PEFT = "it factors no update of a weight matrix, so it is not among the methods here; HF PEFT has it"
# names of methods, in small letters without signs, as in ``ta.plan(model, "QLoRA")``
METHODS = {
    "dora": 'it is a rule for any method: method="lora", rule="dora"',
    **dict.fromkeys(("qlora", "qalora", "loftq"), 'load the model with 4 bits, and take method="lora"'),
    "adalora": 'ranks that change in training are those of ta.reduce_rank, for any method, such as method="lora"',
    "loraplus": 'it is called "lora+"',
    **dict.fromkeys(
        ("full", "fullft", "finetune", "fullfinetuning"), 'in a sweep it is a reference: reference = "full"'
    ),
    **dict.fromkeys(("head", "linearprobe", "linearprobing"), 'in a sweep it is a reference: reference = "head"'),
    "bitfit": 'in a sweep it is a reference: reference = "bitfit"',
    **dict.fromkeys(
        ("hierarchicaltucker", "httucker", "ht"),
        "notebooks/4_your_own_parameterization.ipynb builds it, as a parameterization of your own",
    ),
    **dict.fromkeys(
        ("ia3", "oft", "boft", "hra", "road", "shira", "reft", "cpt", "poly", "xlora", "vblora", "lntuning"),
        _IN_PEFT,
    ),
    **dict.fromkeys(("prefix", "prefixtuning", "prompttuning", "ptuning", "fourierft", "waveft"), _IN_PEFT),
}


def unknown_method(name: str, valid: Iterable[str]) -> str:
    """Return the message for a method that is not here, which says what it is here or where it is.

    >>> print(unknown_method("QLoRA", ("lora",)))
    unknown method 'QLoRA'; load the model with 4 bits, and take method="lora"
    >>> print(unknown_method("tuker", ("cp", "tucker")))
    unknown method 'tuker'; did you mean "tucker"? Valid: cp, tucker; ta.methods() describes them
    >>> print(unknown_method("lora,cp", ("lora", "cp")))
    unknown method 'lora,cp'; write lora cp in a terminal, and ["lora", "cp"] elsewhere
    """
    parts, valid = [part.strip() for part in name.split(",")], [*valid]
    if len(parts) > 1 and {*parts} <= {*valid}:
        return f"unknown method {name!r}; write {' '.join(parts)} in a terminal, and {json.dumps(parts)} elsewhere"
    bare = "".join(letter for letter in name.casefold() if letter.isalnum() or letter == "+")
    hint = f"; {METHODS[bare]}" if bare in METHODS else f"{did_you_mean(name, valid)}; ta.methods() describes them"
    return f"unknown method {name!r}{hint}"


def called(word: object, valid: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: what it is called here, or else the closest valid name.

    >>> called("n_jobs", ["workers"]), called("stpes", ["steps"])
    ('; it is called workers', '; did you mean "steps"? Valid: steps')
    """
    names = [*valid]
    here, *sentence = WORDS.get(str(word), ("",))
    if here in names:
        return f"; it is called {here}"
    return f"; {sentence[0]}" if sentence else did_you_mean(word, names)


def no_attribute(owner: str, name: str, meant: Mapping[str, str], valid: Iterable[str]) -> AttributeError:
    """Make the error for an attribute that is missing, which names what to type in its place.

    >>> no_attribute("an Adapter", "merge", ADAPTER, ())
    AttributeError('an Adapter has no merge; type ta.merge(model)')
    """
    public = [one for one in valid if not one.startswith("_")]
    hint = f"; type {meant[name]}" if name in meant else did_you_mean(name, public)
    return AttributeError(f"{owner} has no {name}{hint}")


class Module(ModuleType):
    """A module that says, where it is called, which function of it to call."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Raise TypeError with what to type."""
        raise TypeError(f"{self.__name__} is a module; type {MODULES[self.__name__.rpartition('.')[2]]}")


def answers_keywords(*others: str, **meant: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that it answers an unknown keyword with the one to type.

    ``others`` are keywords that the function takes by ``**``. ``meant`` says what to do about words of this function
    alone, beside ``WORDS``; others are compared with the names of the function's arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        every = inspect.signature(function).parameters.values()
        known = (*(each.name for each in every if each.kind is not each.VAR_KEYWORD), *others)

        @wraps(function)
        def call(*args: P.args, **given: P.kwargs) -> R:
            if unknown := [name for name in given if name not in known]:
                hint = f"; {meant[unknown[0]]}" if unknown[0] in meant else called(unknown[0], known)
                raise TensorAdaptError(f"{function.__name__} takes no {unknown[0]}{hint}")
            return function(*args, **given)

        return call

    return decorate
