"""Check that no link of the built site is dead: ``python docs/check_site.py site``.

Each href and src that leads to a file of the site must find it, and each #anchor an element with that id. Links to
other sites are counted and not followed, as the check works offline.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and the ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.links.append(value)
            if name in ("id", "name") and value:
                self.ids.add(value)


def dead_links(site: Path) -> Iterator[str]:
    """Each dead link, with the page that it is on."""
    pages = read(site)
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{path.relative_to(site)}: {link} leads to no file"
            elif target in pages and unquote(parts.fragment) not in pages[target].ids:
                yield f"{path.relative_to(site)}: {link} leads to no element"


def read(site: Path) -> dict[Path, Page]:
    """Every page of the site."""
    return {path: Page(path.read_text()) for path in sorted(site.resolve().rglob("*.html"))}


def main(site: Path) -> int:
    """Print what is dead, and the numbers of pages and links; 1 if anything is dead."""
    pages, dead = read(site), list(dead_links(site.resolve()))
    links = [link for page in pages.values() for link in page.links]
    away = sum(bool(urlsplit(link).netloc) for link in links)
    counts = f"{len(pages)} pages, {len(links):,} links ({away:,} of them to other sites), {len(dead)} dead"
    print("\n".join([*dead, counts]))
    return 1 if dead or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
