"""What is refused says what was found, what was expected and what to do, before anything has changed."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from support.models import TIED, llama, make
from torch import nn

import tensoradapt as ta
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network
from tensoradapt.parameterizations import cp
from tensoradapt.sites.recipe import Part, Recipe

Call = Callable[[], Any]


def plan(**changes: Any) -> Call:
    """A plan of the tiny Llama's q and o, with something wrong about it."""
    wrong = {"layout": TIED, "method": "tucker", "rank": 2, "projections": ("q", "o"), **changes}
    return lambda: ta.plan(ta.find_sites(llama(), wrong.pop("projections")), **wrong)


def find(given: Any = None, **changes: Any) -> Call:
    return lambda: ta.find_sites(llama() if given is None else given, **changes)


def holes() -> Call:
    sites = ta.find_sites(llama(), ("q", "o"), exclude=["*.1.self_attn.o_proj"])
    return lambda: ta.plan(sites, TIED, "cp", rank=2)


def loose(layout: Layout, rank: Any) -> Network:
    """A train whose first two cores name the bond between them differently."""
    first, inner = Factor("in", ("in", "r1")), Factor("layer", ("r2", "layer", "r3"))
    return Network(layout, (first, inner, Factor("out", ("r3", "out"), "zero")), {"r1": 2, "r2": 2, "r3": 2})


def blocks(first: nn.Module) -> nn.Module:
    """A model of two layers, of which this is the first."""
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Sequential(first), nn.Sequential(nn.Linear(8, 8))])
    return model


def sparse() -> nn.Module:
    layer = nn.Linear(8, 8)
    layer.weight = nn.Parameter(layer.weight.detach().to_sparse())
    return blocks(layer)


def lazy() -> nn.Module:
    return blocks(nn.LazyLinear(8))


def building(**made: Any) -> Any:
    """A parameterization of one's own: ``first`` is what its build returns for rank 1, ``later`` for others."""

    def build(layout: Layout, rank: Any) -> Any:
        return made["first" if rank == 1 else "later"](layout)

    return SimpleNamespace(__name__="mine", build=build, count=cp.count, oracle=cp.oracle)


def shrunk(layout: Layout) -> Network:
    """A network over one layer less than it was asked for."""
    return cp.build(Layout.parse(str(layout), {**layout.size_of, "layer": 1}), 2)


NOT_BUILT = ["build of parameterization 'mine' returned ", "expected a Network over 'layer proj : head dim : model' ("]
RANKS = {"layer": 1, "proj": 1, "head": 2, "dim": 2, "model": 2}
SITE = ta.find_sites(llama())[0]
FEW = {"out": (31, 2, 1), "in": (31, 2, 1)}
REFUSED: dict[str, tuple[Call, list[str]]] = {
    "rank 0": (plan(rank=0), ["rank is 0", "expected a whole number of 1 or more"]),
    "build that returns nothing": (
        plan(method=building(first=lambda _: None)),
        [*NOT_BUILT, "NoneType None", "return Network(layout, factors, bonds)"],
    ),
    "build that returns another layout": (
        plan(method=building(first=shrunk)),
        [*NOT_BUILT, "a network over 'layer proj : head dim : model' (1, 2, ", "with the layout that it is given"],
    ),
    "rank above its mode": (
        plan(rank={**RANKS, "head": 7}),
        [
            "site model.layers.0.self_attn.q_proj: rank 7 of 'head' is above the",
            TIED,
            "(3, 2, 6, 8, 24)",
            "or one whole number to have it clipped",
        ],
    ),
    "rank of an unknown mode": (plan(rank={**RANKS, "heads": 2}), ["rank names 'heads'", 'did you mean "head"?']),
    "neither rank nor budget": (plan(rank=None), ["rank=None and budget=None", "expected exactly one"]),
    "budget too small": (plan(rank=None, budget=40), ["budget 40 is below the smallest possible", "rank 1 takes 44"]),
    "as many as dense": (
        plan(layout=": out : in", method="lora", rank=50, projections=("q",)),
        ["would have 5,184 parameters", "the 3 matrices themselves have only 3,456", "lower the rank or the budget"],
    ),
    "layout without colons": (plan(layout="out in"), ["'out in' has 0 colons", "expected exactly two"]),
    "layout with an open bracket": (
        plan(layout="(layer : out : in"),
        ["does not parse at '('", "parentheses only to merge"],
    ),
    "layout without rows": (plan(layout="layer : : in"), ["leaves its row modes empty", "expected e.g."]),
    "layout with a mode twice": (plan(layout="layer layer : out : in"), ["names layer more than once", "one place"]),
    "layout with two orientations": (plan(layout=": out : in model"), ["mixes column modes in and model"]),
    "layout of modes no site has": (
        plan(layout="layer : ff : model"),
        ["self_attn.q_proj has none of the layouts", "head"],
    ),
    "layout that covers less": (plan(layout=": head : model"), ["rows head=6", "cover 6 of the 48", "multiply to 48"]),
    "split of another product": (
        plan(layout=": out1 out2 : in", split={"out": (5, 9)}),
        ["split out=(5, 9) has the product 45", "is 48 wide", "must multiply to the width"],
    ),
    "a number of blocks that does not divide the width": (
        plan(layout=": out* : in*", method="block_low_rank", split={"out": (7, 7), "in": (4, 6)}, projections=("q",)),
        ["split out=(7, 7) has the product 49", "is 48 wide", "as in split={'out': (6, 8), 'in': (4, 6)}"],
    ),
    "split by width without one of them": (
        plan(layout=": out* : in", split={"out": {48: (6, 2, 4)}}),
        ["no parts for the width 24 of site", "self_attn.o_proj", "split={'out': {48: (6, 2, 4), 24: (4, 3, 2)}}"],
    ),
    "split of an unknown mode": (
        plan(split={"outt": (6, 8)}),
        ["split names 'outt', no row or column mode", 'did you mean "out"?', "head"],
    ),
    "split of an index mode": (plan(split={"layer": (1, 3)}), ["split names 'layer', no row or column mode"]),
    "split names without a split": (
        plan(layout=": out1 out2 : in"),
        [
            "a layout names 'out1'",
            "makes no modes",
            "split={'out': {48: (8, 6), 24: (6, 4)}} (on the command line --split",
        ],
    ),
    "keys narrower than queries": (
        plan(projections=("q", "k"), on_mismatch="error"),
        ["k_proj is head=2 x dim=8 x model=24", "q_proj of the same tensor is head=6", '"split"', '"crop"'],
    ),
    "a grid with holes": (holes(), ["layer=3 x proj=2 has holes", "only 5 of its 6", '"(layer proj) : ..."']),
    "gates on rectangular matrices": (
        lambda: ta.plan(llama(), method="quanta", paper=True),
        ["self_attn.q_proj is 48 x 24, and quanta takes square matrices alone", '"tt_matrix"'],
    ),
    "gates that cost more than the matrix": (
        lambda: ta.plan(
            transformers.BertConfig(hidden_size=62, num_attention_heads=2), method="quanta", paper=True, split=FEW
        ),
        ["would have 115,416 parameters", "have only 92,256; split the widths into more, and more equal, parts"],
    ),
    "parts of no split": (
        plan(method="tt_matrix", layout=": out* : in*"),
        [
            "': out* : in*' names the parts of out and in",
            "no split says",
            "split={'out': {48: (8, 6), 24: (6, 4)}, 'in': {24: (6, 4)",
        ],
    ),
    "alpha beside a number as scale": (plan(alpha=2, scale=3), ["both scale=3 and alpha=2", "the whole multiplier"]),
    "no method": (
        plan(method=None),
        ["no method was given", "a parameterization or a published adapter, as in method='cp' or 'lotr'", "block_term"],
    ),
    "paper of a parameterization": (
        lambda: ta.plan(llama(), method="Tensor-train", paper=True, rank=2),
        [
            "paper=True was given with method 'Tensor-train', which no paper's settings belong to",
            "published adapters that are a tensor_train: metatt-4d",
            "Leave paper= out, or name a published adapter",
        ],
    ),
    "an unknown argument": (
        plan(rnak=3),
        ["unknown key rnak", 'did you mean "rank"?', "Valid: method, layout, rank, paper, budget and 18 more"],
    ),
    "parameterization without its functions": (
        plan(method=SimpleNamespace(build=cp.build)),
        ["has no count, oracle", "build(layout, rank, **options)"],
    ),
    "options that do not fit": (plan(options={"order": ("q",)}), ["options ['order'] do not fit", "'tucker'"]),
    "an order that is none": (
        plan(method="tensor_train", options={"order": ("model", "head")}),
        ["order ('model', 'head') is not a permutation", "'layer', 'proj', 'head', 'dim'"],
    ),
    "a train whose bonds do not chain": (
        plan(layout="layer : out : in", method=SimpleNamespace(build=loose, count=cp.count, oracle=cp.oracle)),
        [
            "site model.layers.0.self_attn.q_proj: bond 'r1' is held by 1 factor(s)",
            "of in[in=24 r1], layer[r2 layer=3 r3], out[r3 out=48]; a bond joins two or more",
        ],
    ),
    "a class of models": (
        lambda: ta.plan(transformers.BertModel, "lora", rank=1),
        ["the model is the class BertModel", "expected an object of it, as BertModel.from_pretrained(name)"],
    ),
    "a lazy weight": (
        find(lazy(), projections="all"),
        ["parameter blocks.0.0.weight has no shape before its first batch", "run one"],
    ),
    "a sparse weight": (find(sparse(), projections="all"), ["parameter blocks.0.0.weight is sparse", "to_dense()"]),
    "blocks of a layout and whole sites": (
        plan(layout="layer block : out : in"),
        ["has none of the layouts 'layer block : out : in'", "Find the sites with blocks=True, or give a layout"],
    ),
    "blocks of an MLP that no block fits": (
        find(projections=("up", "down"), blocks=True),
        [
            "site model.layers.0.mlp.up_proj is 34 x 24; blocks need an inner width that is a multiple of the model's",
            "Adapt what find_sites(model, ('up', 'down'), blocks=False) returns",
        ],
    ),
    "no sites": (lambda: ta.plan([], TIED, "cp", rank=2), ["the sites are empty", "find_sites(model)"]),
    "unknown model": (
        find(SimpleNamespace(model_type="lama")),
        [
            "no recipe for model type 'lama'",
            'did you mean "llama"? Valid: bert, roberta,',
            "Pass recipe= (one of bert, distilbert,",
            'Recipe("mine", (), ("layers.{}",), (Part("q", ("attn.q",)), ...)) from tensoradapt.sites.recipe',
        ],
    ),
    "a recipe for another model": (
        find(make("llama"), recipe="bert"),
        ["has no module encoder.layer.0", "q of layer 0", "recipe="],
    ),
    "no projections": (find(projections=()), ["no projections were asked for", "q, k, v, o"]),
    "layer matching nothing": (find(layers=[0, 3]), ["layer 3 matches nothing", "layers 0 to 2"]),
    "exclude matching nothing": (
        find(exclude=["*.q_proj", "*.fc1"]),
        ["exclude pattern '*.fc1' matches none of the 12 sites", "model.layers.0.self_attn.q_proj"],
    ),
    "exclude matching all": (find(exclude=["*"]), ["leave none of the 12 sites"]),
    "path with a long name": (lambda: ta.load(make("bert"), "x" * 300), ["path is 'xxx", "has 300 characters"]),
    "update that is a range": (
        lambda: ta.compress({SITE.name: range(9)}, [SITE], ": out : in", "cp", 1),
        ["the update of site model.layers.0.self_attn.q_proj is range(0, 9); expected (A, B), or a matrix (out, in)"],
    ),
    "adapter of a number": (lambda: ta.adapters(3), ["model is 3; expected a torch.nn.Module"]),
    "mode without size": (
        lambda: Layout.parse(": out : in", {"out": 2, "inn": 3}),
        ["needs a size for 'in'", 'did you mean "inn"?'],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_says_what_was_found_and_what_to_do(case: str) -> None:
    call, fragments = REFUSED[case]
    with pytest.raises(ta.TensorAdaptError) as error:
        call()
    message = " ".join(str(error.value).split())
    assert [fragment for fragment in fragments if fragment not in message] == [], message


@pytest.mark.parametrize("name", ["fact-tt", "fact-tk", "cara"])
def test_the_sites_that_a_refusal_of_blocks_names_are_taken(name: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=f"{name} is not defined on this model.*up_proj is 34 x 24") as error:
        ta.plan(llama(), method=name, paper=True, rank=1)
    projections = named_in(error.value, r"find_sites\(model, (\(.*?\)), blocks=True\)")
    sites = ta.find_sites(llama(), projections, blocks=True)  # k and v are narrower, and so a tensor of their own
    taken = ta.plan(sites, method=name, paper=True, rank=1, on_mismatch="split").sites
    assert {site.coord["proj"] for site in taken} == {"q", "k", "v", "o"}


SPLIT = ("tt-lora", "loretta-rep", "lokr", "dota")


@pytest.mark.parametrize(
    ("name", "family"), [("quanta", "bert"), *((name, family) for name in SPLIT for family in ("bert", "llama"))]
)
def test_the_split_that_a_refusal_names_is_taken(name: str, family: str) -> None:
    """The rows name parts of the widths in their papers alone, and these are others."""
    sites = ta.find_sites(make(family), ("q", "v"))
    with pytest.raises(ta.TensorAdaptError, match="no parts for the width") as error:
        ta.plan(sites, method=name, paper=True, rank=1)
    split = named_in(error.value, r"give them with split=(\{.*\})")
    assert len(ta.plan(sites, method=name, paper=True, rank=1, split=split).sites) == len(sites)


def test_parts_that_multiply_to_the_width_are_named_for_those_that_do_not() -> None:
    sites, text = ta.find_sites(make("llama")), ": out1 out2 : in1 in2"
    with pytest.raises(ta.TensorAdaptError, match="has the product 35") as error:
        ta.plan(sites, text, "tensor_train", rank=1, split={"out": (5, 7), "in": (7, 5)})
    split = named_in(error.value, r"as in split=(\{.*\})")
    assert len(ta.plan(sites, text, "tensor_train", rank=1, split=split).sites) == len(sites)


def named_in(error: Exception, pattern: str) -> Any:
    found = re.search(pattern, str(error))
    assert found is not None, str(error)
    return ast.literal_eval(found[1])


class Linear(nn.Module):
    """As quantised layers have it: a weight that is made when asked."""

    def weight(self) -> torch.Tensor:
        return torch.zeros(30, 30)


def test_layers_that_make_their_weight_when_asked_are_not_taken_for_tied_and_named_in_full(tmp_path: Path) -> None:
    model = make("bert")
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            model.set_submodule(name, Linear())
    plan = ta.plan(model, TIED, "cp", rank=2)
    saved = make("bert")
    ta.attach(saved, plan).save(tmp_path)
    for call in (lambda: ta.attach(model, plan), lambda: ta.load(model, tmp_path)):
        with pytest.raises(ta.TensorAdaptError) as error:
            call()
        assert "query is a Linear (test_messages.Linear); expected one of Linear, Conv1D, " in str(error.value)
        assert "as it was before its layers were replaced (by quantising" in str(error.value)


class Two(nn.Module):
    """Two layers that hold one weight, under names a recipe knows."""

    config = SimpleNamespace(
        model_type="x", hidden_size=30, num_hidden_layers=2, num_attention_heads=5, intermediate_size=34
    )

    def __init__(self, other: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(30, 30)}) for _ in range(2))
        self.head = nn.Linear(30, 30)
        {"head": self.head, "layer": self.layers[1]["q"]}[other].weight = self.layers[0]["q"].weight


@pytest.mark.parametrize(("other", "name"), [("head", "head"), ("layer", "layers.1.q")])
def test_tied_weights_are_refused_where_they_are_targeted(other: str, name: str) -> None:
    recipe = Recipe("x", ("x",), ("layers.{}",), (Part("q", ("q",)),))
    with pytest.raises(
        ta.TensorAdaptError, match=f"tied weights are targeted.*layers.0.q and {name} hold one.*exclude="
    ):
        ta.find_sites(Two(other), "all", recipe=recipe)
    if other == "head":
        assert len(ta.find_sites(Two(other), "all", recipe=recipe, exclude=["layers.0.q"])) == 1
