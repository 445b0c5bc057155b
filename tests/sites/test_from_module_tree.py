"""Models without a recipe: what their module trees say, and what they do not."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import transformers
from support.models import DECODER, FAMILIES, inputs, make, perturb
from torch import Tensor, nn

import tensoradapt as ta

GENERIC = "generic recipe: from the module tree, check the printed plan"
FOUND_ALIKE = ("distilbert", "llama", "qwen3", "gemma2", "gpt2", "t5", "whisper-both", "mixtral", "clip")


@pytest.mark.parametrize("name", FOUND_ALIKE)
def test_the_module_tree_gives_the_sites_of_a_recipe_where_its_names_are_certain(name: str) -> None:
    model = make(name)
    by_recipe, by_tree = (ta.find_sites(model, "all", recipe=recipe) for recipe in (None, "generic"))
    of = {(site.key, site.slot, site.rows): site for site in by_tree}
    assert len(of) == len(by_recipe)
    for site in by_recipe:
        other = of[site.key, site.slot, site.rows]
        assert (other.out, other.in_, other.inner, other.reads) == (site.out, site.in_, site.inner, site.reads)
        named = {"layer", "proj", "expert", "attn"} & set(other.coord)
        assert {key: other.coord[key] for key in named} == {key: site.coord[key] for key in named}


def test_a_projection_whose_name_is_uncertain_is_called_by_its_path() -> None:
    sites = ta.find_sites(make("gpt_neox"), "all", recipe="generic", layers=[0])
    assert [(site.coord["proj"], site.inner) for site in sites] == [
        ("attention.query_key_value", ()),
        ("o", ()),  # its heads are not known without a q
        ("up", (("ff", 34),)),
        ("down", (("ff", 34),)),
    ]


class Mixer(nn.Module):
    """Layers of a kind of one's own, with names that say nothing."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first, self.second, self.square = nn.Linear(width, 9), nn.Linear(9, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.square(self.second(torch.tanh(self.first(x))))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 2, 2)
        self.blocks = nn.Sequential(Mixer(), nn.Identity(), Mixer(), Mixer())
        self.head = nn.Linear(6, 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(self.patch(image).flatten(2).mT).mean(1))


class Concatenating(nn.Module):
    """Queries of two streams side by side, and values of each."""

    def __init__(self, queries: int = 12) -> None:
        super().__init__()
        sizes = {"q_proj": (queries, 6), "k_proj": (6, 6), "v_proj": (6, 6), "other_v_proj": (6, 6)}
        layers = [nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()}) for _ in range(2)]
        for layer in layers:
            layer["other"] = nn.ModuleDict({"v_proj": layer.pop("other_v_proj")})
        self.blocks = nn.ModuleList(layers)


def blocks(names: str, parent: str = "attn", n: int = 2) -> nn.Module:
    """A model of one's own whose layers have linear layers of these names in a module, beside an MLP."""
    model, width = nn.Module(), 8
    layers = (nn.ModuleDict({"mlp": nn.ModuleDict({"fc1": nn.Linear(8, 9), "fc2": nn.Linear(9, 8)})}) for _ in range(n))
    model.layers = nn.ModuleList(layers)
    for layer in model.layers:
        held = {
            name: nn.Linear(width, width * (3 if name == "qkv" else 2 if name == "kv" else 1)) for name in names.split()
        }
        layer.update(held) if parent == "" else layer.update({parent: nn.ModuleDict(held)})
    return model


@pytest.mark.parametrize("parent", ["attn", "attention", "mixer", "SelfAttn", ""])
@pytest.mark.parametrize(
    "names",
    [
        *("Wq Wk Wv Wo", "wq wk wv wo", "W_q W_k W_v W_o", "q k v out", "Q K V O", "query key value proj"),
        *("to_q to_k to_v to_out", "q_proj k_proj v_proj c_proj", "linear_q linear_k linear_v linear_out"),
        *("Query Key Value Dense", "qkv proj", "q kv proj"),
    ],
)
def test_the_four_matrices_of_an_attention_are_found_alike_whatever_holds_them(names: str, parent: str) -> None:
    found = ta.find_sites(blocks(names, parent))
    assert [site.coord["proj"] for site in found] == [*"qkvo", *"qkvo"]
    assert {site.module for site in found if site.coord["layer"] == 0} == {
        ".".join(filter(None, ("layers.0", parent, name))) for name in names.split()
    }


def test_attention_of_which_only_a_part_has_a_role_is_refused_with_the_others_names() -> None:
    model = blocks("wq wk readout gates")
    with pytest.raises(
        ta.TensorAdaptError, match=r"'attention' is only q, k here, and beside layers.0.attn.wq are"
    ) as e:
        ta.attach(model, "lora", rank=1)
    both, found = (eval(text.split(")")[0] + ")") for text in str(e.value).split("projections=")[1:])
    assert both == ("q", "k", "attn.readout", "attn.gates")
    assert len(ta.find_sites(model, both)) == 8
    assert found == ("q", "k") and len(ta.find_sites(model, found)) == 4


def test_a_model_of_ones_own_has_its_paths_as_projections_and_shapes_decide_who_writes() -> None:
    sites = ta.find_sites(Own(), "all")
    assert sites.source == GENERIC
    assert {site.coord["layer"] for site in sites} == {0, 2, 3}
    assert [(s.name, s.coord["proj"], s.reads, s.inner) for s in sites[:3]] == [
        ("blocks.0.first", "first", True, ()),
        ("blocks.0.second", "second", False, ()),
        ("blocks.0.square", "square", True, ()),
    ]
    assert GENERIC in str(ta.plan(sites, ": out : in", "lora", rank=1))


def test_an_adapter_on_convolutions_layers_and_heads_is_the_base_with_deltas_in_its_weights() -> None:
    model, image = Own().double(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    weights = {key: p.detach().clone() for key, p in model.named_parameters()}
    sites = ta.find_sites(model, "all", modules=("patch", "head"))
    assert [site.name for site in sites[-2:]] == ["patch", "head"]
    assert (sites[-2].out, sites[-2].in_, sites[-2].reads) == (6, 12, False)
    adapter = ta.attach(model, ta.plan(sites, ": out : in", "lora", rank=1)).double()
    perturb(adapter)
    for site in sites:
        weights[site.key] += adapter.delta(site).detach().view(weights[site.key].shape)
    expected = torch.func.functional_call(Own().double(), weights, (image,))
    torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-10)


def test_the_parts_of_embeddings_and_convolutions_are_modes() -> None:
    model = make("vit")
    patch = ta.find_sites(model, (), modules="*patch_embeddings.projection")
    assert patch[0].coords == (("proj", "projection"),)
    plan = ta.plan(patch, "proj : channel kh kw : model", "cp", rank=2)
    assert plan.groups[0].network.layout.shape == (1, 3, 8, 8, 30)
    embedding = ta.find_sites(make("gpt2"), (), modules="*wte")
    assert ta.plan(embedding, ": token : model", "cp", rank=2).groups[0].network.layout.shape == (50, 30)


@pytest.mark.parametrize("grad", [True, False])
def test_torchs_encoder_in_eval_reads_the_adapter_for_padded_tokens_too(grad: bool) -> None:
    """Its fast path would read the weights past a wrapper."""
    model, base = make("torch-encoder"), make("torch-encoder")
    ids, padding = inputs("torch-encoder")["input_ids"], torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 5:] = True
    adapter = ta.attach(model, ta.plan(model, method="cp", rank=2)).double()
    perturb(adapter)
    with torch.set_grad_enabled(grad):
        found, plain = (one(ids, padding).logits for one in (model, base))
        assert (found - plain).abs().max() > 1e-3
        ta.merge(model)
        torch.testing.assert_close(model(ids, padding).logits[~padding], found[~padding], rtol=0, atol=1e-10)


def test_the_stages_of_a_hierarchical_model_are_stacks_with_heads_of_their_own() -> None:
    model = timm.create_model("swin_tiny_patch4_window7_224", depths=(2, 2, 3, 2), embed_dim=12, num_heads=(1, 2, 3, 4))
    sites = ta.find_sites(model)
    stacks = {site.coord["stack"]: dict(site.inner)["head"] for site in sites}
    assert stacks == {f"layers.{i}.blocks": n for i, n in enumerate((1, 2, 3, 4))}
    assert len(sites) == 4 * (2 + 2 + 3 + 2)


def test_lists_of_experts_are_experts_and_not_layers() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.ModuleDict({"fc1": nn.Linear(6, 9)}) for _ in range(3))
            self.o_proj = nn.Linear(6, 6)

    model = nn.Module()
    model.layers = nn.ModuleList(Layer() for _ in range(2))
    sites = ta.find_sites(model, "all")
    assert sites[1].coords == (("layer", 0), ("proj", "up"), ("expert", 1))
    assert {site.coord["proj"] for site in ta.find_sites(model, "experts")} == {"up"}
    plan = ta.plan(ta.find_sites(model, "experts"), "layer proj expert : ff : model", "cp", rank=2)
    assert plan.groups[0].network.layout.shape == (2, 1, 3, 9, 6)


class Around(nn.Module):
    """A model of one's own around models that have configs."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def test_a_scope_chooses_one_of_several_models_and_its_recipe() -> None:
    model = Around(one=make("gpt_neox"), two=make("bert"))
    assert ta.find_sites(model, scope="one").source == "gpt_neox by recipe gpt_neox in one"
    found = ta.find_sites(model, scope="two")
    assert [site.name for site in found] == [f"two.{site.name}" for site in ta.find_sites(make("bert"))]
    assert ta.find_sites(model).source == GENERIC
    assert {site.coord["stack"] for site in ta.find_sites(model, "all")} == {
        "one.gpt_neox.layers",
        "two.bert.encoder.layer",
    }


@pytest.mark.parametrize(
    ("name", "scope", "n"),
    [
        ("clip", "vision", 8),
        ("clip", "vision_model", 8),
        ("clip", "text_model.encoder", 12),
        ("t5", "encoder", 12),
        ("t5", "decoder", 16),
        ("whisper-both", "model.decoder", 16),
        ("bert", "bert.encoder.layer.1", 4),
        ("torch-encoder", "encoder", 12),
    ],
)
def test_a_scope_is_a_stack_or_a_module(name: str, scope: str, n: int) -> None:
    assert len(ta.find_sites(make(name), scope=scope)) == n


def test_experts_are_tied_by_a_layout_that_names_them_and_part_of_the_mlp() -> None:
    model = make("mixtral")
    sites = ta.find_sites(model, "mlp")
    assert sites.sites == ta.find_sites(model, "experts").sites
    plan = ta.plan(sites, "layer proj expert : ff : model", "cp", rank=2)
    assert plan.groups[0].network.layout.shape == (3, 3, 3, 34, 24)
    shown = str(ta.plan(model, method="cp", rank=2))
    assert shown.count("mlp.experts[*.down] (9)") == 1
    shared = ta.find_sites(make("qwen2_moe"), ("shared_up", "gate"))
    assert {(s.coord["proj"], "expert" in s.coord) for s in shared} == {("shared_up", False), ("gate", True)}


REFUSED: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "no layers": (
        lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3)),
        {},
        ["Sequential has no recipe", "no list of repeated layers", "modules="],
    ),
    "not recognised": (Own, {"projections": "attention"}, ["'attention' matches nothing in generic recipe", "first"]),
    "a projection that is too wide": (
        Concatenating,
        {"projections": "q"},
        [
            "'q' matches nothing in generic recipe",
            "blocks.0.q_proj is 6 x 12 and has no role, as it reads 12 where most matrices of a layer have a side of 6",
            "It is called 'q_proj'",
        ],
    ),
    "a projection that two modules have": (
        lambda: Concatenating(6),
        {"projections": "v"},
        ["blocks.0.v_proj", "its layer has several modules of that name. It is called 'v_proj'"],
    ),
    "unknown scope": (
        lambda: make("t5"),
        {"scope": "encodr"},
        ["scope 'encodr' holds no sites", '"encoder"?', "decoder"],
    ),
    "unknown module": (Own, {"projections": "all", "modules": "hed"}, ["'hed' matches nothing in Own", '"head"?']),
    "module of another kind": (
        lambda: make("bert"),
        {"modules": "*embeddings.LayerNorm"},
        ["matches bert.embeddings.LayerNorm, a LayerNorm", "expected a linear layer", "word_embeddings"],
    ),
    "tree of a config": (FAMILIES["bert"].config, {"recipe": "generic"}, ["a config has none; pass the model"]),
    "tied embedding": (
        lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**DECODER, "tie_word_embeddings": True})),
        {"modules": "*embed_tokens"},
        ["tied weights are targeted", "lm_head", "Leave model.embed_tokens out"],
    ),
    "no config for a recipe": (Own, {"recipe": "bert"}, ["Own has no config", "set model.config", "module tree"]),
    "a layer of other projections": (
        lambda: make("qwen2_moe-mixed"),
        {"projections": "experts", "layers": [0]},
        ["layer 0 matches nothing", "has layers 1"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_selector_that_matches_nothing_says_what_there_is(case: str) -> None:
    given, selectors, fragments = REFUSED[case]
    with pytest.raises(ta.TensorAdaptError) as error:
        ta.find_sites(given(), **selectors)
    message = " ".join(str(error.value).split())
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_what_has_no_heads_is_told_of_a_layout_that_it_has() -> None:
    with pytest.raises(ta.TensorAdaptError, match=r'such as ": out : in", which every matrix has'):
        ta.plan(ta.find_sites(Own(), ("square",)), "layer proj : head dim : model", "cp", rank=2)
    shown = str(ta.plan(ta.find_sites(Own(), (), modules=("patch",)), ": out : in", "lora", rank=1))
    assert [line.split()[-2:] for line in shown.splitlines() if line.startswith("patch")] == [["-", "0"]]


def test_a_scope_is_not_the_beginning_of_another_name() -> None:
    model = Around(one=make("gpt2"), one2=make("bert"))
    assert {site.module.split(".")[0] for site in ta.find_sites(model, "all", scope="one")} == {"one"}
    with pytest.raises(ta.TensorAdaptError, match="scope 'on' holds no sites"):
        ta.find_sites(model, "all", scope="on")
