"""Reads MNIST and Fashion-MNIST from the IDX files in which they are distributed."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from pisa_ray.cli.data.source import Asked, Made, check_classes, contents, lists
from pisa_ray.errors import ConfigError

CLASSES = {
    "mnist": list("0123456789"),
    "fashion-mnist": [
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ],
}  # fmt: skip

#: The seed with which MNIST's training rows are shuffled, as they were for docs/benchmarks.md.
SEED = 1234


def made(asked: Asked) -> Made:
    """Read the images and labels of a split."""
    prefix = {"train": "train", "test": "t10k"}[asked.split]
    images_file = asked.file(f"{prefix}-images-idx3-ubyte", f"{prefix}-images.idx3-ubyte")
    labels_file = asked.file(f"{prefix}-labels-idx1-ubyte", f"{prefix}-labels.idx1-ubyte")
    images, labels = _array(images_file, 3), _array(labels_file, 1)
    if len(images) != len(labels):
        raise ConfigError(
            f"{images_file} has {len(images)} images, but {labels_file} has {len(labels)} labels: take both files from "
            "one download."
        )
    check_classes(labels, 10, str(labels_file))
    rows, height, width = images.shape
    images = images.reshape(rows, height * width)
    if (asked.name, asked.split) == ("mnist", "train"):
        order = np.random.default_rng(SEED).permutation(rows)
        images, labels = images[order], labels[order]
    return lists(asked, "image", images, labels, shape=[1, height, width], class_names=CLASSES[asked.name])


def _array(path: Path, dimensions: int) -> np.ndarray:
    """Read the array of bytes in an IDX file, which has a magic number, the sizes, then the entries."""
    data, header = contents(path), 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])
    if not data.startswith(magic):
        raise ConfigError(
            f"{path} begins with {data[:4].hex() or 'nothing'}, but such a file begins with {magic.hex()}: download it "
            "again."
        )
    if len(data) < header:
        raise ConfigError(f"{path} ends within its header of {header} bytes: download it again.")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if len(data) - header != math.prod(shape) or not len(data) - header:
        raise ConfigError(
            f"{path} has {len(data) - header:,} bytes after its header, which says {' x '.join(map(str, shape))}: "
            "download it again."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
