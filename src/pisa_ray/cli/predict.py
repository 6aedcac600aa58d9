"""Writes the outputs of a run's model for rows with or without labels: `pisa-ray predict RUN_DIR DATA --out FILE`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import torch

from pisa_ray.cli.data.make import write_rows
from pisa_ray.data import open_source
from pisa_ray.engine.user_code import refused
from pisa_ray.errors import ConfigError
from pisa_ray.named import imported
from pisa_ray.trainer.run_directory import RunDirectory
from pisa_ray.trainer.trained import Trained, load

#: The number of rows in memory at a time.
ROWS = 1000

#: The name of the label column that is added to the rows and never read.
_NONE = "no label of these rows"


def predict(
    run_dir: Path, data: str, out: Path, *, best: bool = False, model: str | None = None, trust: bool = False
) -> str:
    """Write a Parquet file with the columns of the data, and the output of the model for each row.

    Args:
        run_dir: The run directory.
        data: A Parquet file or folder with the input columns of the training data.
        out: The file, which must not exist. Its column `output` holds the model's output, a number or a list of
            numbers, and `class`, if the run's labels are classes, the one with the largest output.
        best: Whether to take the best checkpoint's weights, and not those of the last round.
        model: "package.module:function" that makes the model; None: the recorded model.
        trust: Whether to run code that the directory names and that is not of an installed package.

    Returns:
        A sentence on the file.

    Raises:
        ConfigError: If there is no such run, the data do not have its input columns, or the file exists already.
        PisaError: If the file cannot be written.
    """
    if os.path.lexists(out):
        raise ConfigError(f"{out} is there already: remove it, or give another --out.")
    make = None if model is None else imported(model, "--model")
    trained = load(run_dir, best=best, model=make, trust=trust)
    directory = RunDirectory(run_dir)
    recorded = directory.config().get("data") or {}
    columns = recorded.get("input") or "features"
    names = [columns] if isinstance(columns, str) else list(columns)
    shards = directory.read("partition.json").get("shards") or [{}]
    classes, integers = "labels" in shards[0], recorded.get("dtype") == "int64"
    tables = _tables(data, names)
    said = (_said(trained, table, columns, data, classes=classes, integers=integers) for table in tables)
    first = next(said, None)
    if first is None:
        raise ConfigError(f"{data} has no rows: give data with some.")
    rows = write_rows(first.schema, chain([first], said), out)
    return f"{out}: {rows:,} rows, by the model of round {trained.round}"


def _tables(data: str, names: list[str]) -> Iterator[pa.Table]:
    """Check the columns, and return the rows in pieces."""
    try:
        found = ds.dataset(data, format="parquet")
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ConfigError(
            f"{data} cannot be read as Parquet ({error}): give a Parquet file or a folder of them."
        ) from error
    for name in names:
        if name not in found.schema.names:
            raise ConfigError(
                f"{data} has no column {name!r}, which the run's data.input names: it has {found.schema.names}."
            )
    return (pa.Table.from_batches([batch]) for batch in found.to_batches(batch_size=ROWS) if batch.num_rows)


def _said(
    trained: Trained, table: pa.Table, columns: str | list[str], place: str, *, classes: bool, integers: bool
) -> pa.Table:
    """Return a table with the outputs of the model for its rows."""
    labelled = table.append_column(_NONE, pa.array(np.zeros(table.num_rows, dtype=np.int64)))
    source = open_source(labelled, input=columns, label=_NONE, integers=integers, name=place)
    every = np.arange(table.num_rows)
    with refused("the model cannot be applied to these rows", "give rows like those that it was trained with"):
        output: Any = trained(source.read(every).batch(every)[0])
    numbers = _numbers(output, table.num_rows)
    flat = numbers.flatten(1)
    outputs = pa.array(flat[:, 0].numpy()) if flat.shape[1] == 1 else pa.array(list(flat.numpy()))
    said: Mapping[str, pa.Array] = {"output": outputs}
    if classes and numbers.dim() > 1 and numbers.shape[1] > 1:
        best = numbers.argmax(1)
        said = {**said, "class": pa.array(best.numpy() if best.dim() == 1 else list(best.flatten(1).numpy()))}
    for name, values in said.items():
        table = (table.drop_columns(name) if name in table.schema.names else table).append_column(name, values)
    return table


def _numbers(output: Any, rows: int) -> torch.Tensor:
    """Return the output of a model as numbers, [rows, ...]."""
    found = getattr(output, "logits", output)
    if not isinstance(found, torch.Tensor) or len(found) != rows:
        raise ConfigError(
            f"the model returns a {type(output).__name__}, but one tensor with a row for each input is needed: use "
            "pisa_ray.load in Python."
        )
    return found.float() if found.dim() > 1 else found.float()[:, None]
