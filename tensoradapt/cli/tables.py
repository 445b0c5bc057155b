"""Tables as commands print them: a terminal gets the columns that fit, a file or pipe all of them. Nothing is cut."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensoradapt.analysis.names import display
from tensoradapt.text import plain

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 20  # columns of a terminal; one with fewer breaks the lines itself
GAP = 2  # cells between two columns
MAIN = 5  # most important columns: for their sake long texts are folded
FOLDED = {"method": 18, "rank": 12}  # columns that may be folded, and to how many cells at least


def method_text(row: Mapping[str, Any]) -> str:
    """Return the name that tables give to the method of a row."""
    return display(str(row["method"]))


def print_table(
    rows: Sequence[tuple[str, ...]], order: Sequence[str], *, frontier: Collection[int] = (), elsewhere: str
) -> None:
    """Print a table whose first row has the titles, and below it what a terminal has no room for.

    Args:
        rows: the titles, which differ, and the rows.
        order: the titles, most important first; the first two are always there.
        frontier: numbers, from 0, of the rows to print bold, as they are on the frontier.
        elsewhere: what to do to see the columns for which there is no room.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console()
    columns = {title: [*map(plain, cells)] for title, *cells in zip(*rows, strict=True)}
    filled = [title for title in order if any(columns[title])]
    shown = {title: max(map(cell_len, [title, *cells])) for title, cells in columns.items()}
    missing: list[str] = []
    if console.is_terminal:
        shown = fitting({title: shown[title] for title in filled}, order[:MAIN], max(NARROWEST, console.width))
        missing = [title for title in filled if title not in shown]
    console.width = max(console.width, _room_for(shown))
    _print_columns(console, columns, shown, frontier)
    if frontier and console.color_system is not None:  # else the terminal shows nothing bold
        console.print(Text("bold: on the frontier"))
    if missing:
        console.print(Text(f"no room for {', '.join(missing)}: {elsewhere}"))
    console.print()


def fitting(widths: Mapping[str, int], main: Collection[str], room: int) -> dict[str, int]:
    """Return the columns that there is room for, with their widths: most important first, each if it still fits.

    Where the main columns do not fit whole, there are no others, and long texts are folded.

    >>> widths = {"method": 30, "test": 5, "rank": 4, "over frozen base": 24, "lr": 5}
    >>> fitting(widths, ["method", "test", "rank"], 60)
    {'method': 30, 'test': 5, 'rank': 4, 'lr': 5}
    >>> fitting(widths, ["method", "test", "rank"], 40)
    {'method': 27, 'test': 5, 'rank': 4}
    """
    mains = {title: width for title, width in widths.items() if title in main}
    least = widths
    if _room_for(mains) > room:
        most = max(1, room - GAP - sum([*mains.values()][1:2]))  # the second column is always there
        least = mains | {title: min(mains[title], cells, most) for title, cells in FOLDED.items() if title in mains}
    shown: dict[str, int] = {}
    for title, width in least.items():
        if len(shown) < 2 or _room_for({**shown, title: width}) <= room:
            shown[title] = width
    for title in (title for title in FOLDED if title in shown):
        shown[title] += min(widths[title] - shown[title], max(0, room - _room_for(shown)))
    return shown


def _room_for(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _print_columns(
    console: Console, columns: Mapping[str, Sequence[str]], widths: Mapping[str, int], bold: Collection[int]
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    titles = [title for title in columns if title in widths]
    for title in titles:
        table.add_column(title, justify="right", width=widths[title], no_wrap=title not in FOLDED, overflow="fold")
    table.columns[0].justify = "left"
    for i, cells in enumerate(zip(*(columns[title] for title in titles), strict=True)):
        table.add_row(*map(Text, cells), style="bold" if i in bold else None)  # a name is no markup
    console.print()
    console.print(table)
