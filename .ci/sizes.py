"""Print the code lines of each folder beside its budget, the table "Sizes" of CONTRIBUTING.md; fail above one.

A code line holds code: docstrings, comments and blank lines are free, so that explaining costs nothing.

    python .ci/sizes.py            the table
    python .ci/sizes.py --largest  and the twenty largest files
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `(?P<folder>[^`]+)` \| (?P<budget>[\d,]+) \|", re.MULTILINE)
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Return how many lines of a file hold code; a string that stands alone holds none."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def budgets(text: str) -> dict[str, int]:
    """Return the folders of a table and their budgets; a folder "a/" has all below it, "a/*.py" the files in it."""
    return {row["folder"]: int(row["budget"].replace(",", "")) for row in ROW.finditer(text)}


def files(root: Path, folder: str) -> list[Path]:
    """Return the Python files of a row."""
    found = root.glob(folder if "*" in folder else f"{folder}**/*.py")
    return sorted(path for path in found if "__pycache__" not in path.parts)


def main(root: Path, largest: bool) -> int:
    allowed = budgets((root / "CONTRIBUTING.md").read_text())
    rooms = {folder: files(root, folder) for folder in allowed}
    sizes = {path: code_lines(path.read_text()) for paths in rooms.values() for path in paths}
    counted = {folder: sum(sizes[path] for path in paths) for folder, paths in rooms.items()}
    above = [folder for folder, lines in counted.items() if lines > allowed[folder]]
    print(f"{'folder':28}{'code lines':>12}{'budget':>9}")
    for folder, lines in counted.items():
        print(f"{folder:28}{lines:12,}{allowed[folder]:9,}{'  above' if folder in above else ''}")
    package = sum(lines for folder, lines in counted.items() if folder.startswith("tensoradapt/"))
    print(f"{'the package':28}{package:12,}")
    if forgotten := [p for p in files(root, "tensoradapt/") if not any(p in paths for paths in rooms.values())]:
        print(f"in no row of CONTRIBUTING.md: {', '.join(str(path.relative_to(root)) for path in forgotten)}")
    for path, lines in sorted(sizes.items(), key=lambda pair: -pair[1])[: 20 if largest else 0]:
        print(f"{lines:6,}  {path.relative_to(root)}")
    if above:
        print(f"above its budget: {', '.join(above)}; make it smaller, or raise the budget in a commit that says why")
    return int(bool(above or forgotten))


if __name__ == "__main__":
    sys.exit(main(ROOT, "--largest" in sys.argv[1:]))
