"""The table of published adapters has one row per paper's method; ``published.get`` finds one by name.

A row's ``formula`` is its closed parameter count; ``published.LETTERS`` says what its letters are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tensoradapt.networks.network import Paper
from tensoradapt.published.row import Published, Splits, started

ATTENTION = ("q", "k", "v", "o")
QV = ("q", "v")
QKV = ("q", "k", "v")
CP, METATT = ("#0072B2", "s"), ("#D55E00", "p")  # looks
FREE = ": out : in"
SPLIT = ": out* : in*"

_FACT = ("(layer proj block) : out : in", (*ATTENTION, "up", "down"))
_CARA: Mapping[str, Paper] = {
    **dict.fromkeys(("layer_proj", "layer_proj_block"), ("xavier_normal", 1.0)),
    **dict.fromkeys(("head", "dim", "out"), ("orthogonal", 1.0)),
}
# parts for the widths in the sources, and similar parts for other widths
_THREE: Splits = {384: (6, 8, 8), 768: (12, 8, 8), 1024: (16, 8, 8), 4096: (16, 16, 16)}
_TT_LORA = {384: (3, 4, 32), 512: (2, 16, 16), 768: (3, 4, 64), 1024: (2, 2, 4, 4, 16), 2048: (4, 4, 8, 16)}
_TT_LORA |= {3072: (2, 2, 3, 4, 4, 16), 4096: (2, 2, 4, 4, 4, 16), 8192: (2, 2, 2, 4, 4, 4, 16)}
_MIRRORED = (*(f"in{k}" for k in range(12, 0, -1)), *(f"out{k}" for k in range(1, 13)))  # the finest parts at the ends
_QUANTA: Splits = {384: (6, 8, 8), 768: (12, 8, 8), 1024: (16, 8, 8), 4096: (16, 8, 8, 4)}
_LORETTA: Mapping[str, Splits] = {
    "in": {384: (8, 8, 6), 768: (8, 8, 12), 1024: (4, 8, 8, 4), 4096: (16, 16, 8, 2)},
    "out": {384: (8, 6, 8), 768: (8, 12, 8), 1024: (4, 8, 8, 4), 4096: (2, 16, 8, 4, 4)},
}
_LORETTA_CORES: Splits = {384: (8, 8, 6, 8), 768: (8, 8, 12, 8), 1024: (4, 8, 8, 8, 4), 4096: (16, 16, 8, 4, 4)}
_KRONECKER: Splits = {384: (16, 24), 768: (24, 32), 1024: (32, 32), 4096: (64, 64)}
_KHATRI_RAO: Splits = {384: (24, 16), 768: (32, 24), 1024: (32, 32), 4096: (64, 64)}
_WIDTHS = (384, 768, 1024, 4096)
_BLOCKS_NOTE = "defined where the MLP's width is a multiple of the model's"
_METATT_NOTE = (
    "the last core starts at zero, the first is orthogonal, those between are identities; the paper's own start is not "
    "confirmed"
)
_LOHA = "Hyeon-Woo et al., arXiv 2108.06098; as in PEFT, whose ranks above o i / 2(o + i) are not expressible"
_SPLIT_NOTE = "widths 384, 768, 1024 and 4096; others with split="

# ways to tie the updates of q, k and v: the modes tied or split, the formula's sum of mode sizes, how many tensors
_CORE = {"zero": "core"}  # starts at zero, as in the paper
_TENSLORA = {
    "att": (": head dim : in", "i + h + H", "M*L"),
    "qkv": ("proj : out : in", "o + i + M", "L"),
    "depth": ("layer : out : in", "o + i + L", "M"),
    "att_qkv": ("proj : head dim : in", "i + h + H + M", "L"),
    "att_depth": ("layer : head dim : in", "i + h + H + L", "M"),
    "qkv_depth": ("layer proj : out : in", "o + i + M + L", "1"),
    "att_qkv_depth": ("layer proj : head dim : in", "i + h + H + M + L", "1"),
}


def _parted(n: int = 0, size: int = 0, widths: tuple[int, ...] = _WIDTHS) -> Mapping[str, Splits]:
    """Cut both sides into ``n`` blocks, or into blocks of ``size``."""
    parts: Splits = {w: (n, w // n) if n else (w // size, size) for w in widths}
    return dict.fromkeys(("out", "in"), parts)


def _sharelora(kind: str, formula: str, **changes: Any) -> Published:
    source = "Song et al., arXiv 2406.10785"
    return Published(f"ShareLoRA-{kind}", (("layer : out : in", QV),), "lora", source, formula, 16, **changes)


def _lorta(name: str, cols: str, source: str, alpha: float, note: str) -> Published:
    layout = f"layer proj : head dim : {cols}"
    paper = f"Hounie et al., arXiv 2410.04060; {source}"
    return Published(name, ((layout, ATTENTION),), "cp", paper, "r*(d + h + H + L + M)", alpha, note=note, look=CP)


def _metatt(name: str, layout: str, formula: str, note: str = "") -> Published:
    source = "Lopez-Piqueres et al., arXiv 2506.09105"
    return Published(name, ((layout, QV),), "tensor_train", source, formula, note=note + _METATT_NOTE, look=METATT)


def _tenslora(kind: str, name: str) -> Published:
    layout, sides, tensors = _TENSLORA[kind]
    order = len(layout.replace(":", " ").split())
    source = "Marmoret et al., arXiv 2509.19391; heads in the model's order, where the released code mixes them up"
    formula = f"{tensors}*(r*({sides}) + r**{order})"
    return Published(name, ((layout, QKV),), "tucker", source, formula, options=_CORE, one_shape=True)


def _tenslora_cp(kind: str) -> Published:
    layout, sides, tensors = _TENSLORA[kind]
    drawn = [name for name in layout.replace(":", " ").split() if name != "in"]
    return replace(
        _tenslora(kind, f"TensLoRA-CP-{kind}"),
        parameterization="cp",
        options={},
        formula=f"{tensors}*r*({sides})",
        power=0,
        zero="in",
        draws=dict.fromkeys(drawn, ("orthogonal", 1.0)),
    )


ROWS: tuple[Published, ...] = (
    Published("LoRA", ((FREE, QV),), "lora", "Hu et al., arXiv 2106.09685", "M*L*r*(o + i)", 16),
    Published("rsLoRA", ((FREE, QV),), "lora", "Kalajdzievski, arXiv 2312.03732", "M*L*r*(o + i)", 16, power=0.5),
    Published(
        "LoRA+",
        ((FREE, QV),),
        "lora",
        "Hayou et al., arXiv 2402.12354",
        "M*L*r*(o + i)",
        16,
        rates={"B": 16.0},
        note="B learns 16 times as fast as A",
    ),
    started(
        "PiSSA",
        "Meng et al., arXiv 2404.02948; released code",
        "A and B start as the weight's first r singular directions",
        tensors=((FREE, ("all",)),),
        start="subtract",
        base=("A", "B"),
        look=("#0072B2", "<"),
    ),
    Published(
        "LoRA-FA",
        ((FREE, QV),),
        "lora",
        "Zhang et al., arXiv 2308.03303",
        "M*L*r*o",
        16,
        frozen=("A",),
        note="A is drawn for each matrix and stays; ta.preconditioned corrects gradients as the second version does",
    ),
    _sharelora("A", "M*r*(i + L*o)", shared={"A": ("layer",)}, note="all layers of a projection share A"),
    _sharelora("B", "M*r*(o + L*i)", shared={"B": ("layer",)}, note="all layers of a projection share B"),
    replace(
        _sharelora("AB", "M*r*(o + i)", power=1, zero="B", draws={"A": ("kaiming", 1.0)}),
        parameterization="vera",
        options={"trained": True},
        frozen={"d": "ones", "b": "ones"},
        shared={"A": ("layer",), "B": ("layer",)},
        note="all layers of a projection share A and B: VeRA's form with trained bases, and ones for its vectors",
    ),
    _lorta(
        "LoRTA", "model", "factors and draws as in the authors' code", 16, "each head reads and writes its own slice"
    ),
    _lorta(
        "LoRTA-litgpt",
        "in",
        "the instruction-tuning code",
        16,
        "heads on the output of all four; the released code then reads q, k, v interleaved",
    ),
    _lorta("LoRTA-PEFT", "out", "the released fork of PEFT", 8, "heads on the input of all four"),
    Published(
        "LoTR",
        (("(layer proj) : out : in", QV),),
        "tucker",
        "Bershatsky et al., arXiv 2402.01376",
        "r*(o + i) + M*L*r**2",
        power=1,
        zero="core",
        options={"only": ("out", "in")},
        draws=dict.fromkeys(("out", "in"), ("normal", 1.0)),
        look=("#56B4E9", "P"),
    ),
    Published(
        "FacT-TT",
        (_FACT,),
        "tucker",
        "Jie & Deng, arXiv 2212.03145",
        "2*d*r + (4 + 2*f//d)*L*r**2",
        zero="out",
        options={"only": ("out", "in")},
        draws={"in": ("kaiming", 1.0), "core": ("kaiming_bond", 1.0)},
        blocks=True,
        note=f"{_BLOCKS_NOTE}; alpha is chosen per data set; every core is drawn within 1/sqrt(r), where the released "
        "code draws down's within 1/sqrt(r f/d)",
    ),
    Published(
        "FacT-TK",
        (_FACT,),
        "tucker",
        "Jie & Deng, arXiv 2212.03145",
        "2*d*r + r**3 + (4 + 2*f//d)*L*r",
        zero="out",
        draws={"in": ("kaiming", 1.0), "core": ("xavier", 1.0), "layer_proj_block": ("xavier", 1.0)},
        blocks=True,
        note=f"{_BLOCKS_NOTE}; alpha is chosen per data set; the paper's equation, where the released code reads the "
        "cores of up and down with rank and block exchanged, and down's with its two ranks exchanged besides",
    ),
    Published(
        "Aurora",
        (("(layer proj) : out : in", QKV),),
        "tucker",
        "Wang et al., arXiv 2305.08381; the released code",
        "r*(o + i) + r**3 + M*L*r",
        zero="out",
        draws={"in": ("kaiming", 1.0), "core": ("xavier", 1.0), "layer_proj": ("xavier", 1.0)},
        note="FacT-TK's equation, though the paper writes CP; q, k, v as in the code's text encoder; p is drawn as one "
        "matrix, within sqrt(6/(r + M L)), so 0.37 at r=8 and 12 layers, where the code draws (r, 1) for each matrix "
        "of the text encoder and (r, 4) for each layer of the image encoder, within 0.82 and 0.71",
    ),
    _metatt("MetaTT-4D", "layer proj : out : in", "r*(o + i) + (L + M)*r**2"),
    _metatt("MetaTT-5D", "layer proj : head dim : in", "(i + h)*r + (L + M + H)*r**2"),
    _metatt(
        "MetaTT-4+1D",
        "layer proj task : out : in",
        "r*(o + i) + (L + M + T)*r**2",
        "needs tasks=; adapter.select(task=...) chooses one, or one per sample; ",
    ),
    Published(
        "CaRA",
        (("(layer proj) : head dim : in", QKV), ("(layer proj block) : out : in", ("o", "up", "down"))),
        "cp",
        "Veeramacheneni et al., ICML 2025",
        "r*(3*L + d + H + h) + r*((1 + 2*f//d)*L + 2*d) + 2*r + 2*d + f",
        power=0,
        zero="in",
        draws=_CARA,
        options={"weights": True},
        blocks=True,
        biases=("o", "up", "down"),
        note=f"{_BLOCKS_NOTE}; 6 d of its numbers are shared biases; o, up and down have one orientation, with zero on "
        "the input, where the released code turns down around: zero on the output of o and up, on the input of down",
    ),
    *(row for kind in _TENSLORA for row in (_tenslora(kind, f"TensLoRA-{kind}"), _tenslora_cp(kind))),
    replace(
        _tenslora("att_qkv_depth", "TensLoRA+"),
        source="TensLoRA+, released code",
        formula="r*(i + h + H + M + L) + r**5",
        rates={"core": 8.0},
        note="att_qkv_depth whose core learns 8 times as fast",
    ),
    Published(
        "TT-LoRA",
        ((SPLIT, QV),),
        "tensor_train",
        "Anjum et al., arXiv 2408.01008; released code",
        "M*L*train([*n[i][::-1], *n[o]], r)",
        16,
        start="paper",
        draws=dict.fromkeys(_MIRRORED, ("unit", 1.0)),
        split=dict.fromkeys(("out", "in"), _TT_LORA),
        options={"order": _MIRRORED},
        note="does not start at zero: cores of norm 1, drawn for each matrix; in the other published start all layers "
        "share one truncated dense draw (seed 42); the code's parts, and such for 384; others with split= (the paper "
        "searches for them)",
    ),
    Published(
        "LoRETTA-rep",
        ((SPLIT, QV),),
        "loretta",
        "Yang et al., arXiv 2402.11417",
        "M*L*(train(cores[o], r) + train(cores[i], r))",
        16,
        start="paper",
        split=_LORETTA,
        options={"bottleneck": 8, "cores": _LORETTA_CORES},
        train=("*[nN]orm*",),
        note="does not start at zero; trains every norm layer besides; for classification the source also puts a "
        "random tensor-train in the place of classifier.dense and pooler.dense, which this row leaves out; "
        f"its other form, two trains with a ReLU between, adds layers: it is no update of a matrix; {_SPLIT_NOTE}",
    ),
    Published(
        "FLoRA",
        ((FREE, QV),),
        "tucker",
        "Si et al., arXiv 2405.14739; as in the authors' PEFT code",
        "M*L*(r*(o + i) + r**2)",
        16,
        power=1,
        zero="core",
        draws={"in": ("kaiming", 1.0), "out": ("kaiming_bond", 1.0)},
    ),
    started(
        "HiRA",
        "Huang et al., ICLR 2025; as in PEFT",
        "has no alpha; the update multiplies the base weight, entry by entry, so it is of full rank from r=2 on and is "
        "exported within the weights",
        start="zero",
        rule="hira",
    ),
    Published("VeRA", ((FREE, QV),), "vera", "Kopiczko et al., arXiv 2310.11454, equation 2", "M*L*(o + r)"),
    Published(
        "Tied-LoRA",
        (("layer proj : out : in", QKV),),
        "vera",
        "Renduchintala et al., arXiv 2311.09578",
        "r*(i + M*o) + L*(r + M*o)",
        power=1,
        zero="B",
        draws={"A": ("kaiming", 1.0), "d": ("constant", 1.0), "b": ("constant", 1.0)},
        options={"trained": True},
        shared={"A": ("layer", "proj"), "B": ("layer",), "d": ("proj",)},
        note="VeRA's form with trained bases, on q, k and v as one matrix; the paper's u and v are d and b; "
        "B starts at zero and they at one, where the paper's own start is not confirmed",
    ),
    Published(
        "RandLoRA",
        ((FREE, QV),),
        "randlora",
        "Albert et al., arXiv 2502.00987; as in PEFT",
        "M*L*ceil(min(o, i)/r)*(min(o, i) + r)",
        640,
        note="PEFT has the frozen columns of B in another order, which are random",
    ),
    Published(
        "LoRA-XS",
        ((FREE, ("q", "v", "o", "down")),),
        "lora_xs",
        "Balazy et al., arXiv 2405.17604; released code",
        "M*L*r**2",
        16,
        start="paper",
        note="starts at 1e-5 times random numbers; its bases come from the weights; targets as in the code for GLUE",
    ),
    Published(
        "TinyLoRA",
        ((FREE, QV),),
        "tinylora",
        "arXiv 2602.04118; as in PEFT",
        "M*L*r",
        note="r numbers for each matrix; PEFT's weight_tying=1 is options={'tied': True} over layer proj : out : in, "
        "and between 0 and 1 it is not expressible; its bases come from the weights",
    ),
    Published("LoHa", ((FREE, QV),), "loha", _LOHA, "2*M*L*r*(o + i)", 8),
    Published(
        "ABBA",
        ((FREE, QV),),
        "loha",
        "Singhal et al., arXiv 2505.14238; released code",
        "2*M*L*r*(o + i)",
        8,
        power=0,
        zero="B2",
        base=("A1", "B1"),
        draws={"A2": ("kaiming", 6**0.5)},
        note="A1 and B1 start as the weight's first r singular directions; alpha stands for sqrt(alpha1 alpha2); "
        "options={'second': r2} is the rank of the second pair, which then counts (r + r2)*(o + i) and which the "
        "code's start ignores",
    ),
    Published(
        "LoKr",
        ((SPLIT, QV),),
        "kronecker",
        "LyCORIS, arXiv 2309.14859; as in PEFT",
        "M*L*(n[o][0]*n[i][0] + r*(n[o][1] + n[i][1]))",
        8,
        split=dict.fromkeys(("out", "in"), _KRONECKER),
        note=f"{_SPLIT_NOTE}; not expressible: PEFT's decompose_both, both sides low-rank",
    ),
    Published(
        "KronA",
        ((SPLIT, QV),),
        "kronecker",
        "Edalati et al., arXiv 2212.10650",
        "M*L*(n[o][0]*n[i][0] + n[o][1]*n[i][1])",
        power=0,
        split=dict.fromkeys(("out", "in"), _KRONECKER),
        options={"full": True},
        note=f"has no rank; the paper tunes the multiplier; {_SPLIT_NOTE}",
    ),
    Published(
        "PHM",
        ((SPLIT, QV),),
        "tt_matrix",
        "Zhang et al., arXiv 2102.08597",
        "M*L*mpo(n[o], n[i], r)",
        split=_parted(4),
        note="a sum of r Kronecker products, each with a matrix of n x n; the paper's n is both, so r = 4 with these "
        f"parts; {_SPLIT_NOTE}",
    ),
    Published(
        "Compacter",
        (("layer proj : out* : in*", QV),),
        "compacter",
        "Karimi Mahabadi et al., arXiv 2106.04647",
        "M*L*r*(o + i) + n[i][0]**3",
        split=_parted(4, widths=(*_WIDTHS, 2048)),
        note="an update has the form of the paper's layers, which are inside adapters of their own; it starts at "
        f"zero, where the code draws S; {_SPLIT_NOTE}",
    ),
    Published(
        "GraLoRA",
        ((SPLIT, QV),),
        "block_low_rank",
        "Jung et al., arXiv 2505.20355; as in PEFT",
        "M*L*r*(n[i][0]*o + n[o][0]*i)",
        64,
        split=_parted(2),
        look=("#D55E00", "P"),
        note="r is the rank of a block: the source's r is that times the number of blocks along a side, here 2, and "
        f"excludes its hybrid rank, which in the authors' code it includes; {_SPLIT_NOTE}",
    ),
    Published(
        "MoRe",
        ((": out2 out1 : in1 in2", QV),),
        "block_low_rank",
        "Tan et al., arXiv 2408.17383; released code",
        "M*L*r*(n[i][0]*o + n[o][0]*i)",
        power=0,
        split=_parted(4),
        note="neighbouring rows are of different blocks; r is the rank of a block: the source's blk_r is 4 times it; "
        f"not expressible: a blk_r that 4 does not divide, so of uneven blocks, and padded blocks; {_SPLIT_NOTE}",
    ),
    Published(
        "KRAdapter",
        ((SPLIT, QV),),
        "khatri_rao",
        "Albert et al., arXiv 2508.00230; released code",
        "M*L*min(o, i)*(n[max(o, i)][0] + n[max(o, i)][1])",
        2,
        split=dict.fromkeys(("out", "in"), _KHATRI_RAO),
        note="has no rank; the code's parts of 384 and 768, 21 x 19 and 29 x 27, are cropped: not expressible; "
        "parts as for square matrices: for 4096 x 1024 the code has (128, 32); "
        f"its own merge adds the transposed update; {_SPLIT_NOTE}",
    ),
    Published(
        "C3A",
        ((SPLIT, QV),),
        "block_circulant",
        "Chen et al., arXiv 2407.19342; as in PEFT",
        "M*L*o*i//n[i][1]",
        split=_parted(size=64),
        note="has no rank; starts at zero, as with PEFT's init_weights=True, where its default draws K within "
        f"sqrt(6/(o + i)); {_SPLIT_NOTE}",
    ),
    Published(
        "MiSS",
        ((SPLIT, QV),),
        "shared_block",
        "Kang and Yin, arXiv 2409.15371; as in PEFT",
        "M*L*o*n[i][1]",
        split={"out": {w: (1, w) for w in _WIDTHS}, "in": {w: (w // 64, 64) for w in _WIDTHS}},
        note="has no rank: the source's r is the input's last part, here 64; not expressible: bat, and an r that does "
        f"not divide the inputs, whose last block is cut; {_SPLIT_NOTE}",
    ),
    Published(
        "MiSS-mini",
        ((SPLIT, QV),),
        "shared_block",
        "Kang and Yin, arXiv 2409.15371; as in PEFT",
        "M*L*n[o][1]*n[i][1]",
        split=_parted(size=64),
        note=f"has no rank: the source's r and mini_r are the last parts, here 64; {_SPLIT_NOTE}",
    ),
    Published(
        "QuanTA",
        ((SPLIT, QV),),
        "quanta",
        "Chen et al., arXiv 2406.00132",
        "M*L*gates(n[i])",
        start="subtract",
        split=dict.fromkeys(("out", "in"), _QUANTA),
        note=f"has no rank; {_SPLIT_NOTE}",
    ),
    Published(
        "DoTA",
        ((SPLIT, QV),),
        "tt_matrix",
        "Hu et al., arXiv 2412.20891",
        "M*L*mpo(n[o], n[i], r)",
        start="subtract",
        base=("*",),
        split=dict.fromkeys(("out", "in"), _THREE),
        note=f"starts as the weight's own truncated train; {_SPLIT_NOTE}",
    ),
)
