"""Pictures: read by Pillow, told apart by their pixels, and made into a model's input."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError, of_extra
from tensoradapt.files import reason
from tensoradapt.lab.data import image_models

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # some other formats start other programs
IGNORED = ("thumbs.db", "desktop.ini", "__macosx")  # and what begins with a dot
KEPT_BYTES = 2**30  # the most pixel values that a process keeps


@dataclass(frozen=True)
class Picture:
    """A file, and the SHA-256 of its size and pixels in RGB, 32 hex digits.

    ``data``: the content of a file that is in an archive; ``path`` then says where it is there.
    """

    path: Path
    digest: str
    data: bytes | None = field(default=None, repr=False)


def read(path: Path, data: bytes | None = None) -> Picture:
    """Decode a picture to check and to hash it. Raises TensorAdaptError as ``opened`` does."""
    return Picture(path, _digest(opened(path, data)), data)


def opened(path: Path, data: bytes | None = None) -> Any:
    """Return the first frame of a picture as a Pillow image in RGB, turned as its EXIF says.

    Raises TensorAdaptError for a file that is no picture, damaged, of more pixels than Pillow takes to be safe, or
    whose greys have more than 8 bits.
    """
    Image, ImageOps = (of_extra(f"PIL.{name}", "vision", f"reading {path}", "pillow") for name in ("Image", "ImageOps"))
    hint = f"expected a picture ({' '.join(SUFFIXES)}): replace or remove it"
    if data is None and path.exists() and not path.is_file():  # a device can be without end
        raise TensorAdaptError(f"{path} is no file; {hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path if data is None else io.BytesIO(data), formats=FORMATS) as found:
                mode, whole = found.mode, ImageOps.exif_transpose(found)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = Image.MAX_IMAGE_PIXELS or 0
        raise TensorAdaptError(f"{path} has more than {most:,} pixels; expected fewer: make it smaller") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged files make decoders raise errors of many kinds
        why = "damaged or of another format" if type(error).__name__ == "UnidentifiedImageError" else reason(error)
        raise TensorAdaptError(f"{path} cannot be read ({why}); {hint}") from None
    if mode.startswith(("I", "F")):
        raise TensorAdaptError(f"{path} has greys of more than 8 bits (mode {mode}); expected 8: convert it")
    return whole.convert("RGB")


def _digest(picture: Any) -> str:
    return hashlib.sha256(b"%d %d " % picture.size + picture.tobytes()).hexdigest()[:32]


def pixels(picture: Picture, model: str, task: str) -> Mapping[str, np.ndarray]:
    """Return what a model's image processor makes of a picture: ``pixel_values`` (1, 3, height, width) and others.

    Up to ``KEPT_BYTES`` of them are kept for the model and task that were asked for last. Raises TensorAdaptError
    where the picture is not what it was when the task was read.
    """
    kept = _kept(model, image_models.processor_time(model), task)
    if picture.digest in kept:
        return kept[picture.digest]
    image = opened(picture.path, picture.data)
    if _digest(image) != picture.digest:
        raise TensorAdaptError(
            f"{picture.path} has changed since task {task!r} was read; put it back, or run again, which computes new "
            "runs"
        )
    made = image_models.processed(model, image)
    if (len(kept) + 1) * sum(value.nbytes for value in made.values()) <= KEPT_BYTES:
        kept[picture.digest] = made
    return made


@lru_cache(maxsize=1)
def _kept(model: str, written: int, task: str) -> dict[str, Mapping[str, np.ndarray]]:
    return {}
