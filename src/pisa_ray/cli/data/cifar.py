"""Reads CIFAR-10 from the files of its binary version."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pisa_ray.cli.data.source import Asked, Made, check_classes, contents, entries, with_label
from pisa_ray.errors import ConfigError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

#: The bytes of a record: its class, then the red, green and blue values of 32 rows of 32 pixels.
RECORD = 1 + 3 * 32 * 32


def made(asked: Asked) -> Made:
    """Read the images and labels of a split; images become PNG files, which lose nothing."""
    here = {path.name.lower() for path in entries(asked.source)}
    if "data_batch_1" in here and "data_batch_1.bin" not in here:
        raise ConfigError(
            f"{asked.source} has CIFAR-10 as Python pickles, which are not read, as they may run code: download the "
            "binary version, whose files are data_batch_1.bin to data_batch_5.bin and test_batch.bin."
        )
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if asked.split == "train" else ["test_batch.bin"]
    batches = [_records(asked.file(name)) for name in names]
    schema = with_label(asked, pa.field("image", pa.binary(), nullable=False), shape=[3, 32, 32], class_names=CLASSES)
    return Made(schema, _tables(batches, schema))


def _records(path: Path) -> np.ndarray:
    data = contents(path)
    if not data or len(data) % RECORD:
        raise ConfigError(
            f"{path} has {len(data):,} bytes, but records of {RECORD:,} bytes are expected: download it again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    check_classes(records[:, 0], len(CLASSES), str(path))
    return records


def _tables(batches: list[np.ndarray], schema: pa.Schema) -> Iterator[pa.Table]:
    for records in batches:
        images = [_png(record[1:].reshape(3, 32, 32)) for record in records]
        yield pa.Table.from_arrays([pa.array(images), pa.array(records[:, 0].astype(np.int64))], schema=schema)


def _png(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(encoded, "PNG")
    return encoded.getvalue()
