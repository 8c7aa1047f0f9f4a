"""The digits the demo learns: the packaged ones, or MNIST or Fashion-MNIST from idx files."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

IMAGES_MAGIC = 0x00000803
LABELS_MAGIC = 0x00000801
# Where Debian's package dataset-fashion-mnist puts its files.
FASHION_FOLDER = Path("/usr/share/dataset-fashion-mnist")

DIGIT_NAMES = tuple("0123456789")
FASHION_NAMES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Boot",
)


class DataError(Exception):
    """A data file is missing or is not what it claims to be; the text says which and why."""


@dataclass(frozen=True)
class Digits:
    """Pictures as uint8 (count, 28, 28) and their labels as int64 (count,)."""

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_packaged() -> Digits:
    """The 5,000 + 1,000 MNIST digits that come with flambeau."""
    with files("flambeau.demo").joinpath("digits.npz").open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        arrays = {name: archive[name] for name in archive.files}
    return Digits(
        "MNIST digits",
        DIGIT_NAMES,
        arrays["train_images"],
        arrays["train_labels"].astype(np.int64),
        arrays["test_images"],
        arrays["test_labels"].astype(np.int64),
    )


def load_folder(folder: Path) -> Digits:
    """The four idx files (plain or .gz) of MNIST or Fashion-MNIST in ``folder``."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    train_images, train_labels = read_pair(folder, "train")
    test_images, test_labels = read_pair(folder, "t10k")
    is_fashion = "fashion" in str(folder.resolve()).lower()
    return Digits(
        "Fashion-MNIST" if is_fashion else f"idx files in {folder}",
        FASHION_NAMES if is_fashion else DIGIT_NAMES,
        train_images,
        train_labels,
        test_images,
        test_labels,
    )


def read_pair(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and labels of one part ("train" or "t10k"), checked against each other."""
    images_path = find_file(folder, f"{part}-images", "idx3-ubyte")
    labels_path = find_file(folder, f"{part}-labels", "idx1-ubyte")
    images = read_idx(images_path, IMAGES_MAGIC)
    labels = read_idx(labels_path, LABELS_MAGIC)
    if images.shape[1:] != (28, 28):
        height, width = images.shape[1:]
        raise DataError(f"{images_path}: pictures of {height}x{width}, the demo needs 28x28")
    if len(images) != len(labels):
        raise DataError(
            f"{images_path.name} has {len(images)} pictures, "
            f"{labels_path.name} has {len(labels)} labels"
        )
    if len(labels) == 0:
        raise DataError(f"{labels_path}: no pictures at all")
    if labels.max() > 9:
        raise DataError(f"{labels_path}: label {labels.max()} found, the demo knows 0 to 9")
    return images, labels.astype(np.int64)


def find_file(folder: Path, stem: str, kind: str) -> Path:
    """The first spelling that exists: ``stem-idx3-ubyte`` or ``stem.idx3-ubyte``, plain or .gz."""
    names = [f"{stem}-{kind}", f"{stem}-{kind}.gz", f"{stem}.{kind}", f"{stem}.{kind}.gz"]
    for name in names:
        path = folder / name
        if path.is_file():
            return path
    raise DataError(f"{folder} has no {names[0]} (or .gz); found: {describe_folder(folder)}")


def describe_folder(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "nothing"
    shown = ", ".join(names[:6])
    return shown + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def read_idx(path: Path, magic: int) -> np.ndarray:
    """One idx file of unsigned bytes; ``DataError`` when header and contents do not agree."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    rank = magic & 0xFF
    header_size = 4 + 4 * rank
    if len(content) < header_size:
        raise DataError(f"{path}: {len(content)} bytes, shorter than its {header_size}-byte header")
    found, *shape = struct.unpack(f">I{rank}I", content[:header_size])
    if found != magic:
        raise DataError(
            f"{path}: starts with 0x{found:08x}, an idx file of this kind with 0x{magic:08x}"
        )
    expected = int(np.prod(shape, dtype=object))
    if len(content) - header_size != expected:
        raise DataError(
            f"{path}: header promises {expected:,} bytes, "
            f"the file holds {len(content) - header_size:,}"
        )
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape).copy()
