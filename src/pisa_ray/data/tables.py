"""Sources whose rows come as Arrow tables, and the plainest of them: a table in memory."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

from pisa_ray.data.base import Source
from pisa_ray.data.columns import (
    check_nulls,
    equal_lists,
    is_list,
    is_number,
    is_text,
    numbers,
    partition_values,
    plan_features,
)
from pisa_ray.data.rows import TensorRows
from pisa_ray.errors import ConfigError

PIECE_ROWS = 5000  # rows of an in-memory table that are decoded at once


class TableSource(Source):
    """Rows in pieces, each of which can be loaded as an Arrow table of some columns.

    Args:
        schema: The table's schema.
        piece_rows: Rows of each piece, all positive.
        input: The input column or columns.
        label: The label column.
        place: What to call the table in error messages.

    Raises:
        ConfigError: If the table is empty or a column is missing or of a type that cannot be used.
    """

    def __init__(
        self,
        schema: pa.Schema,
        piece_rows: Sequence[int],
        *,
        input: str | Sequence[str] | None,  # noqa: A002
        label: str | None,
        place: str,
    ):
        self.piece_rows, self.rows = tuple(piece_rows), sum(piece_rows)
        self._names, self._place = tuple(schema.names), place
        if not self.rows:
            raise ConfigError(f"{place} has no rows, but at least one is needed: give data that are not empty.")
        inputs = () if input is None else (input,) if isinstance(input, str) else tuple(input)
        if not inputs or label is None:
            missing = "data.label" if inputs else "data.input"
            raise ConfigError(f"{missing} is missing, but {place} is a table: name one of {self._listed()}.")
        for key, name in [*(("data.input", name) for name in inputs), ("data.label", label)]:
            self._check_column(key, name)
        _check_label(schema.field(label).type, label)
        self._label = label
        self._sequences = is_list(schema.field(label).type)
        self._features = plan_features(schema, inputs, lambda: self.head(list(inputs)))
        self.input_shape = self._features.shape
        self.input_dtype = torch.from_numpy(np.empty(0, self._features.dtype)).dtype

    @abstractmethod
    def load(self, piece: int, columns: list[str]) -> pa.Table:
        """Loads some columns of one piece."""

    def head(self, columns: list[str]) -> pa.Table:
        """Loads some columns of the first row."""
        return self.load(0, columns).slice(0, 1)

    def read(self, rows: np.ndarray) -> TensorRows:
        """Reads some rows, loading each piece that holds any of them once; see `Source.read`."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.rows):
            raise IndexError(f"Row numbers must be in [0, {self.rows}), but reach from {rows.min()} to {rows.max()}.")
        inputs = np.empty((len(rows), *self.input_shape), self._features.dtype)
        targets: np.ndarray | None = None
        columns = list(dict.fromkeys((*self._features.columns, self._label)))
        for piece, first, where in self._by_piece(rows):
            table = self.load(piece, columns)
            local = rows[where] - first
            inputs[where] = self._features.read(table, local, first)
            if self._sequences:
                length = len(table[self._label][0]) if targets is None else targets.shape[1]
                labels = _typed(equal_lists(table[self._label], self._label, length, first))
            else:
                labels = _targets(table[self._label], self._label)
            targets = np.empty((len(rows), *labels.shape[1:]), labels.dtype) if targets is None else targets
            targets[where] = labels[local]
        return TensorRows(torch.from_numpy(inputs), torch.from_numpy(np.empty(0) if targets is None else targets))

    def column(self, name: str) -> np.ndarray:
        """Reads one column over all rows; see `Source.column`."""
        self._check_column("partition.column", name)
        return np.concatenate([partition_values(self.load(p, [name])[name], name) for p in range(len(self.piece_rows))])

    def labels(self) -> np.ndarray:
        """Reads the label column; see `Source.labels`."""
        name = self._label
        if self._sequences:
            raise ConfigError(
                f"data.label is {name!r}, a column of lists, so a row has no label of its own: use a partition that "
                "asks for none (iid, quantity, by_column, indices) and a model.factory."
            )
        return np.concatenate([_targets(self.load(p, [name])[name], name) for p in range(len(self.piece_rows))])

    def _by_piece(self, rows: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yields (piece, its first row's number, where in `rows` its rows are)."""
        starts = self.starts()
        pieces = np.searchsorted(starts, rows, side="right") - 1
        order = np.argsort(pieces, kind="stable")
        for where in np.split(order, np.flatnonzero(np.diff(pieces[order])) + 1):
            if len(where):
                piece = int(pieces[where[0]])
                yield piece, int(starts[piece]), where

    def _check_column(self, key: str, name: str) -> None:
        if name not in self._names:
            raise ConfigError(f"{key} is {name!r}, but {self._place} has no such column: name one of {self._listed()}.")

    def _listed(self) -> str:
        return ", ".join(map(repr, self._names))


class ArrowSource(TableSource):
    """An Arrow table in memory, which travels with the handle."""

    def __init__(self, table: pa.Table, *, input: str | Sequence[str] | None, label: str | None):  # noqa: A002
        self._table = table
        pieces = [min(PIECE_ROWS, table.num_rows - start) for start in range(0, table.num_rows, PIECE_ROWS)]
        super().__init__(table.schema, pieces, input=input, label=label, place="the table")
        for name in (*self._features.columns, self._label):
            check_nulls(table[name], name)

    def load(self, piece: int, columns: list[str]) -> pa.Table:
        """Slices the table, without a copy."""
        return self._table.select(columns).slice(piece * PIECE_ROWS, self.piece_rows[piece])

    def fingerprint(self) -> str:
        """Hashes the whole content, however the table is cut into chunks."""
        return hash_tables(self.load(piece, list(self._names)) for piece in range(len(self.piece_rows)))


def hash_tables(tables: Iterable[pa.Table], rows: int = 0) -> str:
    """Hashes the content of tables, and a number of rows that stands for what is left out: SHA-256 in hex."""
    # A copy first: the Arrow stream format would also write a slice's neighbours in memory, and show old chunks.
    digest = hashlib.sha256(str(rows).encode())
    for table in tables:
        sink = pa.BufferOutputStream()
        flat = table.take(np.arange(table.num_rows)).combine_chunks().replace_schema_metadata(None)
        with pa.ipc.new_stream(sink, flat.schema) as writer:
            writer.write_table(flat)
        digest.update(sink.getvalue())
    return digest.hexdigest()


def _check_label(kind: pa.DataType, name: str) -> None:
    if is_number(kind) or is_list(kind):
        return
    if is_text(kind) or pa.types.is_dictionary(kind):
        raise ConfigError(
            f"data.label is {name!r}, a text column, but labels are integers from 0 (or floats for regression): store "
            "each text's number in a column and name that one."
        )
    raise ConfigError(
        f"data.label is {name!r}, a column of {kind}, but integers (or floats for regression), or lists of them, are "
        "expected: name another column."
    )


def _targets(column: pa.ChunkedArray, name: str) -> np.ndarray:
    return _typed(numbers(column, name))


def _typed(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
