"""The packaged digits, and idx files good and bad."""

import gzip
import struct

import numpy as np
import pytest

from flambeau.demo.digits import DataError, load_folder, load_packaged


def idx(array):
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """A folder with 20 training and 10 test pictures, plain and compressed files mixed."""
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 10)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_packaged_digits():
    digits = load_packaged()
    assert digits.train_images.shape == (5000, 28, 28)
    assert digits.test_images.shape == (1000, 28, 28)
    assert digits.train_images.dtype == np.uint8
    assert digits.train_labels.dtype == np.int64
    assert np.bincount(digits.train_labels).tolist() == [500] * 10
    assert np.bincount(digits.test_labels).tolist() == [100] * 10
    pictures = np.concatenate([digits.train_images, digits.test_images])
    assert len(np.unique(pictures.reshape(6000, -1), axis=0)) == 6000


def test_idx_folder(folder):
    digits = load_folder(folder)
    assert digits.train_images.shape == (20, 28, 28)
    assert digits.test_labels.tolist() == list(range(10))
    assert digits.train_images.flags.writeable


def test_fashion_is_known_by_its_folder(folder, tmp_path):
    named = tmp_path / "dataset-fashion-mnist"
    named.mkdir()
    for path in list(folder.glob("*-ubyte*")):
        path.rename(named / path.name)
    assert load_folder(named).class_names[9] == "Boot"


IMAGES = "t10k-images-idx3-ubyte.gz"
LABELS = "t10k-labels-idx1-ubyte"
PICTURES = np.zeros((10, 28, 28), np.uint8)

BAD_FILES = {
    "not compressed": (IMAGES, b"plain text", "cannot be read: Not a gzipped file"),
    "cut short": (IMAGES, gzip.compress(idx(PICTURES))[:-20], "cannot be read"),
    "tiny": (LABELS, b"\0\0", "2 bytes, shorter than its 8-byte header"),
    "wrong kind": (LABELS, idx(PICTURES), "starts with 0x00000803"),
    "missing data": (
        LABELS,
        idx(np.zeros(10, np.uint8))[:-3],
        "promises 10 bytes, the file holds 7",
    ),
    "too few labels": (LABELS, idx(np.zeros(9, np.uint8)), "has 10 pictures, t10k-labels"),
    "label too large": (LABELS, idx(np.full(10, 77, np.uint8)), "label 77 found"),
    "other size": (IMAGES, gzip.compress(idx(PICTURES[:, :14])), "pictures of 14x28"),
    "huge header": (LABELS, struct.pack(">II", 0x0801, 0xFFFFFFFF), "promises 4,294,967,295 bytes"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_explained(folder, case):
    name, content, message = BAD_FILES[case]
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match="t10k.*" + message):
        load_folder(folder)


def test_no_pictures(folder):
    (folder / IMAGES).write_bytes(gzip.compress(idx(PICTURES[:0])))
    (folder / LABELS).write_bytes(idx(np.zeros(0, np.uint8)))
    with pytest.raises(DataError, match="no pictures"):
        load_folder(folder)


def test_missing_files_and_folders(folder):
    (folder / LABELS).unlink()
    with pytest.raises(DataError, match="has no t10k-labels-idx1-ubyte .*found: t10k-images"):
        load_folder(folder)
    with pytest.raises(DataError, match="is not a folder"):
        load_folder(folder / "nowhere")
