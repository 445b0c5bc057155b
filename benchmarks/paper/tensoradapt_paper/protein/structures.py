"""Protein chains from files of structures, and how near a predicted chain is: CA-lDDT (biotite), TM-score (tmtools)."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason

LETTERS = "ARNDCQEGHILKMFPSTWYV"  # in the order of ESMFold's residue types
UNKNOWN = "X"  # any other residue
JUMP = 4.5  # more ångströms from one CA to the next than a chain without a gap has


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain of n residues: letters, and places of its CA and CB atoms in ångströms, (n, 3), nan where missing.

    Glycine has its CA for CB. ``gaps``: how often two residues in a row are too far apart to be neighbours.
    """

    name: str
    sequence: str
    ca: np.ndarray
    cb: np.ndarray
    gaps: int

    def __len__(self) -> int:
        return len(self.sequence)

    @property
    def missing(self) -> int:
        """Residues that lack CA or CB."""
        return int((np.isnan(self.ca) | np.isnan(self.cb)).any(1).sum())


def read(path: Path) -> Chain:
    """The first protein chain of the first model in a .pdb or .cif file, or one of these with .gz behind.

    Raises TensorAdaptError for a file that cannot be read, and for fewer than three residues with a CA atom.
    """
    struc = _biotite()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of elements that files do not name
            atoms = _atoms(path)
        chain = atoms[struc.filter_amino_acids(atoms) & ~atoms.hetero]
        chain = chain[chain.chain_id == chain.chain_id[:1]]
        starts = struc.get_residue_starts(chain)
    except Exception as error:  # biotite's readers raise errors of many kinds
        raise TensorAdaptError(
            f"{path} cannot be read ({reason(error)}); expected a structure: a .pdb or .cif file, or with .gz behind"
        ) from error
    letters = [_letter(struc, name) for name in chain.res_name[starts]]
    of_residue = np.searchsorted(starts, np.arange(len(chain)), side="right") - 1
    ca, cb = (_places(chain, of_residue, len(starts), name) for name in ("CA", "CB"))
    cb[[letter == "G" for letter in letters]] = ca[[letter == "G" for letter in letters]]
    if (n := int(np.isfinite(ca).all(1).sum())) < 3:
        raise TensorAdaptError(
            f"{path} has {n} residues with a CA atom in its first chain; expected three or more: leave the file out"
        )
    steps = np.linalg.norm(np.diff(ca, axis=0), axis=1)
    return Chain(path.name.split(".")[0], "".join(letters), ca, cb, int((steps > JUMP).sum()))


def notes(chains: Sequence[Chain]) -> tuple[str, ...]:
    """What chains lack, counted: residues without atoms, gaps, unknown residues."""
    residues = sum(map(len, chains))
    counted = {
        "residues lack a CA or CB atom; pairs with them are left out": sum(chain.missing for chain in chains),
        "gaps in chains, over which residues are taken for neighbours": sum(chain.gaps for chain in chains),
        "unknown residues": sum(chain.sequence.count(UNKNOWN) for chain in chains),
    }
    return tuple(f"{n} of {residues} {what}" if what[0] == "r" else f"{n} {what}" for what, n in counted.items() if n)


def lddt(true: np.ndarray, predicted: np.ndarray) -> float:
    """CA-lDDT of predicted places (n, 3) against true ones, in [0, 1]; residues without a true place do not count."""
    struc = _biotite()
    known = np.isfinite(true).all(1)
    reference = struc.AtomArray(int(known.sum()))
    reference.coord, reference.res_id = true[known].astype(np.float32), np.arange(known.sum())
    reference.atom_name[:], reference.element[:] = "CA", "C"
    return float(struc.lddt(reference, predicted[known].astype(np.float32)))


def tm_score(true: np.ndarray, predicted: np.ndarray, true_sequence: str, sequence: str | None = None) -> float:
    """TM-score by TM-align of predicted places (m, 3) on true ones (n, 3), normalised by the true chain, in (0, 1].

    ``sequence``: of the predicted chain; default the true one's.
    """
    import tmtools

    sides = []
    for places, letters in ((predicted, sequence or true_sequence), (true, true_sequence)):
        known = np.isfinite(places).all(1)
        sides.append((places[known].astype(np.float64), "".join(np.array(list(letters))[known])))
    (first, letters), (second, others) = sides
    return float(tmtools.tm_align(first, second, letters, others).tm_norm_chain2)


def _atoms(path: Path) -> Any:
    from biotite.structure.io import pdb, pdbx

    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        if kind == "cif":
            return pdbx.get_structure(pdbx.CIFFile.read(file), model=1)
        return pdb.PDBFile.read(file).get_structure(model=1)


def _places(chain: Any, of_residue: np.ndarray, n: int, name: str) -> np.ndarray:
    places = np.full((n, 3), np.nan, dtype=np.float32)
    at = np.flatnonzero(chain.atom_name == name)
    places[of_residue[at]] = chain.coord[at]
    return places


def _letter(struc: Any, name: str) -> str:
    letter = struc.info.one_letter_code(name) or UNKNOWN
    return letter if letter in LETTERS else UNKNOWN


def _biotite() -> Any:
    import biotite.structure
    import biotite.structure.info

    return biotite.structure
