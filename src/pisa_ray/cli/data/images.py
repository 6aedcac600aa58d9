"""Reads a folder of images with a sub-folder for each class; the images are stored unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pisa_ray.cli.data.source import Asked, Made, contents, entries, with_label
from pisa_ray.errors import ConfigError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif")

#: The most rows and bytes of a table.
ROWS, BYTES = 5_000, 1 << 26


def made(asked: Asked) -> Made:
    """Read all images, in the order of the classes' numbers, and of the names in each class."""
    files = _files(asked)
    classes = asked.classes or list(files)
    if unknown := [name for name in files if name not in classes]:
        raise ConfigError(
            f"{asked.source / unknown[0]} is a folder of a class that the file of --like does not have: give a folder "
            f"whose classes are of {', '.join(classes)}."
        )
    rows = [(path, number) for number, name in enumerate(classes) for path in files.get(name, [])]
    shape = list(_read(rows[0][0], None)[1])
    schema = with_label(asked, pa.field("image", pa.binary(), nullable=False), shape=shape, class_names=classes)
    return Made(schema, _tables(rows, schema))


def _files(asked: Asked) -> dict[str, list[Path]]:
    """Return the images of each class."""
    files: dict[str, list[Path]] = {}
    for folder in entries(asked.source):
        if folder.is_dir():
            files[folder.name] = entries(folder)
            if not files[folder.name]:
                raise ConfigError(f"{folder} has no images: remove the folder, or put some into it.")
        elif folder.suffix.lower() in ENDINGS:
            raise ConfigError(f"{folder} lies in no folder of a class: move it into {asked.source / 'CLASS'}.")
    if not files:
        raise ConfigError(f"{asked.source} has no sub-folders: make one for each class, and move its images there.")
    for path in (path for paths in files.values() for path in paths):
        if path.suffix.lower() not in ENDINGS or not path.is_file():
            raise ConfigError(
                f"{path} is not an image file ({', '.join(ENDINGS)}): move it away, or give the --from folder whose "
                "sub-folders have the images."
            )
    return files


def _tables(rows: list[tuple[Path, int]], schema: pa.Schema) -> Iterator[pa.Table]:
    images: list[bytes] = []
    labels: list[int] = []
    shape, size = None, 0
    for i, (path, label) in enumerate(rows, 1):
        image, shape = _read(path, shape)
        images.append(image)
        size += len(image)
        labels.append(label)
        if len(images) == ROWS or size > BYTES or i == len(rows):
            yield pa.Table.from_arrays([pa.array(images, pa.binary()), pa.array(labels)], schema=schema)
            images, labels, size = [], [], 0


def _read(path: Path, shape: tuple[int, ...] | None) -> tuple[bytes, tuple[int, ...]]:
    """Read the bytes and the shape of an image, which is decoded as in a run and must have the given shape, if any."""
    from pisa_ray.data.images import decode

    image = contents(path)
    return image, decode(pa.scalar(image, pa.binary()), str(path), shape).shape
