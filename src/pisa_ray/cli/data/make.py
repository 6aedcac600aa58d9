"""Runs `pisa-ray data NAME --from FOLDER --out FILE`: FILE appears only when it is complete."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pisa_ray.cli.data import KINDS
from pisa_ray.cli.data.source import Asked, Made
from pisa_ray.engine.local_files import new_file
from pisa_ray.errors import ConfigError, PisaError

#: The rows of a row group; a worker reads whole groups, and only those that it needs.
ROW_GROUP = 5_000


def make(
    name: str, source: Path, out: Path, *, split: str | None = None, label: str | None = None, like: Path | None = None
) -> str:
    """Make a Parquet file.

    Args:
        name: One of KINDS.
        source: The file or folder that --from names.
        out: The file, which must not exist.
        split: "train" or "test", for data sets that have both; None: "train".
        label: The label column of a CSV file.
        like: A file that was made before, whose classes and features this one must have.

    Returns:
        A description of the file for the user.

    Raises:
        ConfigError: If the options do not fit together, or the data are wrong.
        PisaError: If the file cannot be written.
    """
    own = name in ("images", "csv")
    if own and split is not None:
        raise ConfigError(f"--split is for data sets that have one, but {name} has none: leave it out.")
    if not own and like is not None:
        raise ConfigError(f"--like is for images and csv, but {name} has its classes: leave it out.")
    if (name == "csv") != (label is not None):
        raise ConfigError(
            "csv needs --label COLUMN, the name of its label column, and no other data take it: correct that."
        )
    if out.suffix != ".parquet":
        raise ConfigError(f"--out is {str(out)!r}, but it must be the name of a file that ends in .parquet.")
    if os.path.lexists(out):
        raise ConfigError(f"{out} is there already: remove it, or give another --out.")
    earlier = None if like is None else _known(like)
    module = importlib.import_module(f"pisa_ray.cli.data.{KINDS[name][0]}")
    classes = None if earlier is None else earlier.get("class_names")
    made: Made = module.made(Asked(name, source, split or "train", label or "", classes))
    features = _names(made.schema).get("feature_names")
    if earlier is not None and features != earlier.get("feature_names"):
        raise ConfigError(
            f"{source} has the features {features}, but {like} has {earlier.get('feature_names')}: give a file with "
            "the same columns of numbers."
        )
    rows = write_rows(made.schema, made.tables, out)
    columns = [f"  {field.name:20} {field.type}" for field in made.schema]
    return "\n".join([f"{out}: {rows:,} rows, {out.stat().st_size / 2**20:.1f} MiB", *columns])


def _known(like: Path) -> dict[str, list[str]]:
    """Return the names of the classes and the features of a file."""
    try:
        return _names(pq.read_schema(like))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--like is {str(like)!r}, but it must be a Parquet file made before ({error}).") from error


def _names(schema: pa.Schema) -> dict[str, list[str]]:
    known = {}
    for key in (b"class_names", b"feature_names"):
        if key in (schema.metadata or {}):
            known[key.decode()] = names = json.loads(schema.metadata[key])
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise ValueError(f"its {key.decode()} are not a list of names")
    return known


def write_rows(schema: pa.Schema, tables: Iterable[pa.Table], out: Path) -> int:
    """Write the rows of tables to a Parquet file, all or none, and return their number.

    Raises:
        ConfigError: If the folder of the file cannot be made.
        PisaError: If the file cannot be written.
    """
    rows = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out is {str(out)!r}, but its folder cannot be made ({error.strerror}).") from error
    try:
        with new_file(out) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table, row_group_size=ROW_GROUP)
                rows += table.num_rows
    except OSError as error:
        raise PisaError(f"{out} cannot be written ({error.strerror or error}): nothing is there.") from error
    return rows
