"""Small files of the formats that well-known data sets are distributed in."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

#: A line of adult.data for each class.
ADULT = [
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, "
    "United-States, <=50K",
    "52, ?, 287927, HS-grad, 9, Married-civ-spouse, ?, Wife, Black, Female, 0, 0, 48, ?, >50K",
]


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, rows: int = 20, side: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """IDX files of both splits, some packed; the images, each of one value, and labels of the training split."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.arange(rows, dtype=np.uint8) % 10
    images = np.full((rows, side, side), 3, np.uint8) * np.arange(rows, dtype=np.uint8)[:, None, None]
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return images, labels


def write_cifar10(folder: Path) -> np.ndarray:
    """The six files of the binary version, two images each; the images of one, with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    records = np.concatenate([np.array([[3], [9]], np.uint8), images.reshape(2, -1)], axis=1)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(records.tobytes())
    return images


def write_adult(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adult.data").write_text("\n".join(ADULT * 8) + "\n\n")
    (folder / "adult.test").write_text("|1x3 Cross validator\n" + "".join(f"{line}.\n" for line in ADULT))


def png(value: int, side: int = 4, mode: str = "RGB") -> bytes:
    encoded = io.BytesIO()
    Image.new(mode, (side, side), value).save(encoded, "PNG")
    return encoded.getvalue()


def write_images(folder: Path) -> None:
    """Two classes of two images each."""
    for name, value in (("cat", 1), ("dog", 200)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(2):
            (folder / name / f"{i}.PNG").write_bytes(png(value + i))


def write_csv(path: Path) -> None:
    path.write_text("age,city,member,income\n20,Lyon,true,high\n30.5,Bern,false,low\n41,Lyon,true,low\n")
