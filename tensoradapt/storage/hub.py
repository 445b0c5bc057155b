"""An adapter on the hub is a repository with the three files of a checkpoint and a card; only these are read.

Whatever ``huggingface_hub`` raises becomes one TensorAdaptError that says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from tensoradapt.adapter.checkpoint import FACTORS, HEADS, JSON
from tensoradapt.checks import Check, check_arguments, flag, optional, prose, shown, text
from tensoradapt.errors import TensorAdaptError, few, first_line, located, of_extra
from tensoradapt.files import LARGEST, PICKLES
from tensoradapt.storage.card import adapter_of, model_card

CARD = "README.md"
BARE = {CARD, ".gitattributes", ".gitignore", "LICENSE"}  # what a repository may hold before the first push
LISTED = 5  # an error names at most so many files


def _token(value: Any, where: str) -> None:
    """Raise TensorAdaptError, without the text in it, for what is no token."""
    if not isinstance(value, str | bool) or value == "" or (isinstance(value, str) and not value.isprintable()):
        raise TensorAdaptError(f"{where} is a {type(value).__name__}; expected a token's text, True, False or None")


def _endpoint(value: Any, where: str) -> None:
    try:
        parts = urlsplit(text(value, where))
        known = (
            parts.scheme in ("http", "https")
            and re.fullmatch(r"[\w.:-]+", parts.hostname or "", re.ASCII)
            and parts.port != 0
        )
    except ValueError:  # TensorAdaptError is one too
        known = False
    if not known:
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a hub's address, as https://huggingface.co")


# arguments that name a place on the hub
WHERE: Mapping[str, Check] = {
    "revision": optional(text),
    "token": optional(_token),
    "endpoint": optional(_endpoint),
}


def push_to_hub(
    source: Any,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    message: str = "Adapter saved by tensoradapt",
    card: str | None = None,
    base_model: str | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
) -> Any:
    """Push an adapter, its trained heads and a card to a repository, as one commit (docs/guides/checkpoints.md).

    Args:
        source: the adapter, or a model with one in use.
        repo_id: the repository, created if it is missing; else it must be empty or hold an earlier push.
        private, token, endpoint: as huggingface_hub takes them.
        revision: a branch, created if it is missing; by default the main branch.
        message: the message of the commit.
        card: the whole README.md; by default ``model_card`` writes it.
        base_model, license, tags: for ``model_card``.

    Returns:
        huggingface_hub's ``CommitInfo``; its ``oid`` is a ``revision`` that ``from_pretrained`` takes.

    Raises:
        TensorAdaptError: with nothing pushed, for what ``save`` refuses, a repository that holds something else, and
            where the hub cannot be reached or refuses.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> commit = ta.push_to_hub(adapter, "me/my-adapter")  # doctest: +SKIP
    """
    check_arguments(locals(), repo_id=text, private=optional(flag), message=prose, card=optional(prose), **WHERE)
    hf, adapter = _huggingface_hub("pushing an adapter"), adapter_of(source)

    def readme(name: str) -> str:
        return card or model_card(adapter, name, base_model=base_model, license=license, tags=tags)

    readme(repo_id)  # raises before anything is pushed
    with TemporaryDirectory() as folder, _refusals(hf, repo_id, revision, "pushed to"):
        adapter.save(folder)
        api = hf.HfApi(endpoint=endpoint, token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, revision=revision)
        _check_repository(repo_id, there)
        changes = _changes(hf, Path(folder), readme(repo_id), there)
        return api.create_commit(repo_id, changes, commit_message=message, revision=revision)


def fetch(
    repo_id: str, listed: Callable[[Path], Mapping[str, int]], revision: str | None, where: Mapping[str, Any]
) -> Path:
    """Download a repository's adapter, all files of one commit, and return its folder in huggingface_hub's cache.

    ``listed`` returns, for the folder with adapter.json, the other files that it needs and the most bytes of each.
    The hub's size of a file is checked before it is downloaded. ``where`` has ``token``, ``endpoint`` and
    ``cache_dir`` as huggingface_hub takes them.
    """
    hf = _huggingface_hub("loading an adapter from the hub")
    with _refusals(hf, repo_id, revision, "loaded from"):
        path = _download(hf, repo_id, JSON, revision, LARGEST, where)
        commit = path.parent.name
        with located(f"{repo_id} at {commit[:12]}"):
            wanted = listed(path.parent)
        for name, most in wanted.items():
            _download(hf, repo_id, name, commit, most, where)
    return path.parent


def _download(hf: Any, repo_id: str, name: str, revision: str | None, most: int, where: Mapping[str, Any]) -> Path:
    try:
        info = hf.hf_hub_download(repo_id, name, revision=revision, dry_run=True, **where)
        if (info.file_size or 0) > most:
            raise TensorAdaptError(
                f"{name} of {repo_id} has {info.file_size:,} bytes, and at most {most:,} are an adapter's; it was not "
                "downloaded. Expected a repository that push_to_hub wrote"
            )
        return Path(hf.hf_hub_download(repo_id, name, revision=revision, **where))
    except hf.errors.RemoteEntryNotFoundError:
        if name != JSON:
            raise TensorAdaptError(
                f"{repo_id} has no {name}, which its {JSON} lists; the push was incomplete: push the adapter again"
            ) from None
        api = hf.HfApi(endpoint=where["endpoint"], token=where["token"])
        raise TensorAdaptError(_instead(repo_id, api.list_repo_files(repo_id, revision=revision))) from None


def _instead(repo_id: str, names: Sequence[str]) -> str:
    """Say what a repository without adapter.json is, and what to do with it."""
    if "adapter_config.json" in names:
        what = (
            "it holds an adapter of PEFT. Download it with huggingface_hub.snapshot_download, and make an adapter of "
            "its LoRA with compress(folder, model, ...)"
        )
    elif "config.json" in names:
        what = (
            "it holds a whole model. Load it with transformers (from_pretrained of its class), and attach or load an "
            "adapter onto it"
        )
    elif any(Path(name).suffix in PICKLES for name in names):
        what = "it holds pickled files, which can run code when they are read. Expected one that push_to_hub wrote"
    else:
        held = few(sorted(names), LISTED) or "no files"
        what = f"expected one that push_to_hub wrote, and it holds {held}. Check its name and the revision"
    return f"{repo_id} has no {JSON}: {what}"


def _check_repository(repo_id: str, names: Sequence[str]) -> None:
    if JSON not in names and (others := [name for name in names if name not in BARE]):
        raise TensorAdaptError(
            f"{repo_id} holds {few(sorted(others), LISTED)}, and no adapter; expected a new or empty repository, or an "
            "earlier push, which is replaced. Choose another repo_id"
        )


def _changes(hf: Any, folder: Path, text: str, there: Sequence[str]) -> list[Any]:
    """Return one commit: checkpoint files and card; heads of an earlier push that this adapter lacks are deleted."""
    files = [name for name in (FACTORS, HEADS, JSON) if (folder / name).is_file()]
    added = [hf.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name)) for name in files]
    gone = [hf.CommitOperationDelete(path_in_repo=HEADS)] if HEADS in there and HEADS not in files else []
    return [*added, hf.CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=text.encode()), *gone]


def _huggingface_hub(purpose: str) -> Any:
    of_extra("huggingface_hub.errors", "demo", purpose, "huggingface_hub")
    return of_extra("huggingface_hub", "demo", purpose)


@contextmanager
def _refusals(hf: Any, repo_id: str, revision: str | None, verb: str) -> Iterator[None]:
    """Turn errors of the hub and of the network into TensorAdaptError."""
    try:
        yield
    except TensorAdaptError:
        raise
    except (OSError, ValueError, hf.errors.HTTPError, hf.errors.EntryNotFoundError) as error:
        at = f" at revision {revision!r}" if revision is not None else ""
        raise TensorAdaptError(f"{repo_id!r}{at} cannot be {verb}: {_reason(hf, error)}") from error


def _reason(hf: Any, error: Exception) -> str:
    """Say what the hub refused, and what to do."""
    errors = hf.errors
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what kept it from the hub, before it looked into its cache
    status = getattr(getattr(error, "response", None), "status_code", None)
    log_in = "log in with `hf auth login`, or pass token=, as one who may"
    if isinstance(error, errors.HFValidationError):
        return f"it is no folder here, and no name on the hub, such as me/my-adapter ({first_line(error)})"
    if isinstance(error, errors.GatedRepoError):
        return f"its owner asks who wants it. Accept the conditions on its page, and {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such branch, tag or commit. Check revision="
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no such repository, or not for you. Check the name; if it is private, {log_in}"
    if status in (401, 403):
        return f"the hub does not let you ({first_line(error)}). Check the name, and {log_in}"
    if hf.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and it is not in the cache. Unset it, or load the adapter from a folder"
    if status is not None:
        return f"the hub answered {status} ({first_line(error)}). Try again later"
    if isinstance(error, ValueError):
        return f"huggingface_hub refuses it ({' '.join(str(error).split())[:300]}). Change what it names"
    return f"the hub was not reached ({type(error).__name__}: {first_line(error)}). Check the network and HF_ENDPOINT"
