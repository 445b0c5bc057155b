"""Files of own data, in each of the formats that tasks are read from."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as the suffix of a path says and return the path; the first row has all columns of a table.

    A path without a suffix becomes a data set of the ``datasets`` library, and an unknown suffix is written like .csv.
    """
    path = Path(path)
    if path.suffix in (".jsonl", ".json"):
        text = "".join(json.dumps(row) + "\n" for row in rows) if path.suffix == ".jsonl" else json.dumps(rows)
        path.write_text(text)
    elif path.suffix == ".parquet":
        import pandas

        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        import datasets

        datasets.Dataset.from_list(list(rows)).save_to_disk(str(path))
    return str(path)
