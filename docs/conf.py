"""How Sphinx makes the site: ``python -m sphinx -W --keep-going -n -b html docs site``, without a network.

The pages are plain Markdown that is read on GitHub too. Here their links to files of the repository become links to
REPOSITORY, and those to folders of pages links to the pages. What docs/make/site_pages.py makes is not in git: pages
link to its source, and here to the page that is made of it (MADE_OF).
"""

from __future__ import annotations

import html
import importlib
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

HERE = Path(__file__).parent
ROOT = HERE.parent
REPOSITORY = "https://github.com/tensoradapt/tensoradapt"  # the one place that names it
BRANCH = "main"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = ("furo", "myst_parser", "sphinx_copybutton", "sphinx_design", "nbconvert")
MADE_OF = {  # the source that a handwritten page links to: the made page that the site has in its place
    "notebooks": "notebooks/README.md",
    "docs/make/gallery.py": "gallery/index.md",
    "docs/examples/plots.py": "gallery/plots/index.md",
    "tensoradapt/__init__.py": "reference/index.md",
    "tensoradapt/published/rows.py": "reference/methods.md",
    "tensoradapt/planning/spec.py": "reference/fields.md",
    "tensoradapt/lab/tasks/own_settings.py": "reference/fields.md",
    "tensoradapt/lab/analysis/results.py": "reference/columns.md",
    "tensoradapt/lab/analysis/tables.py": "reference/columns.md",
    "tensoradapt/lab/analysis/statistics/__init__.py": "reference/analyse.md",
    "tensoradapt/sites/recipe.py": "reference/plan.md",
    "tensoradapt/integrations/trainer.py": "reference/trainers.md",
    "tensoradapt/lab/data/assets.py": "reference/extend.md",
}
MADE = re.compile(r"gallery/|reference/(?!architecture|doctor|errors|numerics|robustness|versions)")  # link to sources

if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    needs = f'the site needs {", ".join(missing)}; pip install "tensoradapt[docs]"'
    print(needs, file=sys.stderr, flush=True)
    os._exit(2)  # an exception would be shown with a page of versions and a traceback
sys.path.insert(0, str(ROOT))  # the reference is of this checkout, not of an installed version

project, author, copyright = PROJECT["name"], "the tensoradapt authors", "the tensoradapt authors, Apache-2.0"
version = release = PROJECT["version"]
extensions = ["myst_parser", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["examples/trainers/**"]
language = "en"
smartquotes_action = "D"  # dashes alone: quotes stay as they are typed, as many are Python's
highlight_language = "none"  # indented blocks are commands, tables and what programs print
pygments_style, pygments_dark_style = "friendly", "github-dark"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # the same anchors as GitHub's
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"tensoradapt {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_search_scorer = str(HERE / "_static" / "scorer.js")
html_theme_options = {
    "source_repository": f"{REPOSITORY}/",
    "source_branch": BRANCH,
    "source_directory": "docs/",
    "top_of_page_buttons": ["view", "edit"],
}

VARIANTS = ("", "_dark", "_narrow", "_narrow_dark")  # of docs/make/variants.py
LINK = re.compile(r"(?<!!)(\[[^\[\]]+\])\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")  # not of pictures
CODE = re.compile(r"(^```.*?^```|^~~~.*?^~~~)", re.MULTILINE | re.DOTALL)


def make_pages(app: Sphinx, config: Config) -> None:
    """Make the pages and pictures that are not in git, before the pages are read."""
    sys.path.insert(0, str(HERE / "make"))
    try:
        importlib.import_module("site_pages").write(HERE)
    except ValueError as error:  # as those of tensoradapt are
        raise ConfigError(str(error)) from error


def links_to_the_repository(app: Sphinx, name: str, source: list[str]) -> None:
    """Turn links that lead out of the site into links to the repository; let code end without an empty line."""
    folder, parts = (HERE / name).parent, CODE.split(source[0])
    link = partial(relinked, folder, {} if MADE.match(name) else MADE_OF)
    source[0] = "".join(
        re.sub(r"\n+(```|~~~)$", r"\n\1", part) if number % 2 else LINK.sub(link, part)
        for number, part in enumerate(parts)
    )


def relinked(folder: Path, made_of: Mapping[str, str], link: re.Match[str]) -> str:
    return f"{link[1]}({address(folder, link[2], made_of)}{link[3] or ''})"


def address(folder: Path, path: str, made_of: Mapping[str, str]) -> str:
    """Where a link of a page in ``folder`` leads on the site: a page, or an address in the repository."""
    target = (folder / path).resolve()
    if target.is_dir() and (target / "README.md").is_file() and target.is_relative_to(HERE):
        return f"{path.rstrip('/')}/README.md"
    page = target.is_relative_to(HERE) and target.suffix == ".md"
    if page or not target.exists() or not target.is_relative_to(ROOT):  # what is missing Sphinx reports
        return path
    name = target.relative_to(ROOT).as_posix()
    if made := f"{name.removesuffix('.ipynb')}.md" if made_of and target.suffix == ".ipynb" else made_of.get(name):
        return Path(os.path.relpath(HERE / made, folder)).as_posix()
    return f"{REPOSITORY}/{'tree' if target.is_dir() else 'blob'}/{BRANCH}/{name}"


def pages_of_the_folder(app: Sphinx, name: str, source: list[str]) -> None:
    """Let the first page of a folder have the others below it, where it does not list them itself.

    Of a folder below it, that is its first page, and where it has none, each page.
    """
    page = Path(name)
    if page.name in ("README", "index") and page.parent.name and "{toctree}" not in source[0]:
        folder = HERE / page.parent
        alone = {path for path in folder.glob("*/*.md") if not (path.parent / "README.md").is_file()}
        others = sorted({*folder.glob("*.md"), *folder.glob("*/README.md"), *alone} - {folder / f"{page.name}.md"})
        names = "\n".join(path.relative_to(folder).with_suffix("").as_posix() for path in others)
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n" if names else ""


def fitting_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Put the variants of each picture beside it; site.css shows the one of the reader's theme and width."""
    folder = Path(app.env.doc2path(app.env.docname)).parent
    for image in list(doctree.findall(nodes.image)):
        there = [suffix for suffix in VARIANTS if (folder / with_suffix(image["uri"], suffix)).is_file()]
        if len(there) > 1:
            every = [variant(image, suffix, there) for suffix in there]
            image.parent.replace(image, every)


def variant(image: nodes.image, suffix: str, there: list[str]) -> nodes.image:
    """Return a picture's variant, with the classes that say when it is shown."""
    made = image.deepcopy()
    made["uri"], made["loading"] = with_suffix(image["uri"], suffix), "lazy"
    widths = ["picture-narrow" if "narrow" in suffix else "picture-wide"] if "_narrow" in there else ["drawing"]
    made["classes"] += ["only-dark" if "dark" in suffix else "only-light", *widths]
    return made


def with_suffix(uri: str, suffix: str) -> str:
    stem, dot, ending = uri.rpartition(".")
    return f"{stem}{suffix}{dot}{ending}"


def describe(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Give a page the description that search engines show: its first sentence."""
    if doctree is not None:
        told = html.escape(first_sentence(app, name) or PROJECT["description"])
        context["metatags"] = f'{context.get("metatags", "")}<meta name="description" content="{told}" />'


def write_llms(app: Sphinx, error: Exception | None) -> None:
    """Write llms.txt: each page with its title, address and first sentence, in the order of the sections."""
    if error is None and app.builder.format == "html":
        titles = app.env.titles
        order = list(app.env.toctree_includes.get("index", []))
        names = [*order, *sorted(set(titles) - set(order) - {"index"})]
        lines = [f"- [{titles[name].astext()}]({name}.html): {first_sentence(app, name)}" for name in names]
        head = [f"# {project} {release}", "", f"> {PROJECT['description']}", "", "## Pages", ""]
        (Path(app.outdir) / "llms.txt").write_text("\n".join([*head, *lines]) + "\n")


def first_sentence(app: Sphinx, name: str) -> str:
    """The first sentence of a page's first paragraph."""
    paragraphs = (node.astext() for node in app.env.get_doctree(name).findall(nodes.paragraph))
    text = " ".join(next(paragraphs, "").split())
    return re.split(r"(?<=[.:?])\s", text, maxsplit=1)[0].rstrip(":")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", make_pages)
    app.connect("source-read", links_to_the_repository)
    app.connect("source-read", pages_of_the_folder)
    app.connect("doctree-read", fitting_pictures, priority=400)  # before Sphinx collects pictures
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_llms)
    return {"parallel_read_safe": True}
