"""Sources whose rows come as Arrow tables, and a table in memory as the simplest of them."""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

from pisa_ray.data.base import Source
from pisa_ray.data.columns import (
    Columns,
    check_finite,
    check_nulls,
    equal_lists,
    is_list,
    is_number,
    is_text,
    list_size,
    numbers,
    partition_values,
    plan_inputs,
    storage,
)
from pisa_ray.data.images import is_image
from pisa_ray.data.rows import TensorRows
from pisa_ray.data.where import Where
from pisa_ray.errors import ConfigError

#: Rows of a table in memory that are decoded at once.
PIECE_ROWS = 5000


class TableSource(Source):
    """A source in pieces, each of which can be loaded as an Arrow table of some columns.

    Args:
        schema: The table's schema.
        piece_rows: The number of rows of each piece, at least 1.
        columns: The columns that the user names.
        place: What to call the table in error messages.

    Raises:
        ConfigError: If the table is empty or a column is missing or of a type that cannot be used.
    """

    def __init__(self, schema: pa.Schema, piece_rows: Sequence[int], columns: Columns, place: str):
        self.piece_rows, self.rows = tuple(piece_rows), sum(piece_rows)
        self._names, self._place = tuple(schema.names), place
        if not self.rows:
            raise ConfigError(f"{place} has no rows, but at least one is needed: give data that are not empty.")
        inputs, label = columns.named(self._names, place, "is given in columns", "has no such column")
        _check_label(schema.field(label).type, label)
        self._label, self._schema = label, schema
        where = Where(place)
        self._inputs = plan_inputs(schema, inputs, lambda: self.head(list(inputs)), where, integers=columns.integers)
        self.input_shape = self._inputs.shape
        self.input_dtype = torch.from_numpy(np.empty(0, self._inputs.dtype)).dtype
        kind, self.target_name = schema.field(label).type, label
        self.target_shape: tuple[int, ...] = ()
        if is_list(kind):
            size = list_size(kind, lambda: self.head([label])[label], where.cell(0, label))
            self.target_shape, kind = (size,), kind.value_type
        self.target_dtype = torch.float32 if pa.types.is_floating(kind) else torch.int64

    @abstractmethod
    def load(self, piece: int, columns: list[str]) -> pa.Table:
        """Load some columns of one piece."""

    def head(self, columns: list[str]) -> pa.Table:
        """Load some columns of the first row."""
        return self.load(0, columns).slice(0, 1)

    def read(self, rows: np.ndarray) -> TensorRows:
        """Read some rows, loading each piece that holds any of them once; see `Source.read`."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.rows):
            raise IndexError(f"Row numbers must be in [0, {self.rows}), but reach from {rows.min()} to {rows.max()}.")
        inputs = np.empty((len(rows), *self.input_shape), self._inputs.dtype)
        targets = np.empty((len(rows), *self.target_shape), _stored(self.target_dtype))
        columns = list(dict.fromkeys((*self._inputs.columns, self._label)))
        for piece, first, where in self._by_piece(rows):
            table = self.load(piece, columns)
            local = rows[where] - first
            inputs[where] = self._inputs.read(table, local, Where(self._place, first))
            targets[where] = self._targets(table, Where(self._place, first))[local]
        return TensorRows(torch.from_numpy(inputs), torch.from_numpy(targets))

    def column(self, name: str) -> np.ndarray:
        """Read one column over all rows; see `Source.column`."""
        if name not in self._names:
            known = ", ".join(map(repr, self._names))
            raise ConfigError(
                f"partition.column is {name!r}, but {self._place} has no such column: name one of {known}."
            )
        return np.concatenate([partition_values(table[name], name, where) for table, where in self._tables([name])])

    def targets(self) -> Iterator[tuple[int, np.ndarray]]:
        """Read the label column; see `Source.targets`."""
        for table, where in self._tables([self._label]):
            yield where.first_row, self._targets(table, where)

    def labels(self) -> np.ndarray:
        """Read the label column; see `Source.labels`."""
        if self.target_shape:
            raise ConfigError(
                f"data.label is {self._label!r}, a column of lists, so a row has no label of its own: use a partition "
                "that asks for none (IID, QuantitySkew, ByColumn, Indices) and a model of your own."
            )
        return np.concatenate([targets for _, targets in self.targets()])

    def check(self, name: str, *, inputs: bool) -> None:
        """Check the columns of numbers, in one pass; see `Source.check`."""
        columns = [*(self._inputs.columns if inputs else ()), self._label]
        doubtful = [column for column in dict.fromkeys(columns) if self._is_doubtful(column)]
        if doubtful:
            self.check_pieces(doubtful, name)

    def check_pieces(self, columns: list[str], name: str) -> None:
        """Check columns of numbers in all pieces; the errors are those of `check`."""
        for piece in range(len(self.piece_rows)):
            self.check_piece(piece, columns, name)

    def check_piece(self, piece: int, columns: list[str], name: str) -> None:
        """Check columns of numbers in one piece; the errors are those of `check`."""
        table, where = self.load(piece, columns), Where(name, int(self.starts()[piece]))
        for column in columns:
            values = self._numbers(table, column, where)
            if values.dtype.kind == "f" or column == self._label or self._inputs.kind == "list":
                check_finite(values, column, where)

    def _is_doubtful(self, column: str) -> bool:
        """Return whether a column may hold NaN, nulls or lists of other lengths, which the metadata do not show."""
        kind = storage(self._schema.field(column).type)
        if is_image(kind):  # images are decoded only when they are needed
            return False
        if is_list(kind):
            if not pa.types.is_fixed_size_list(kind):
                return True
            kind = kind.value_type
        return pa.types.is_floating(kind) or kind == pa.uint64() or not self.has_no_nulls(column)

    @abstractmethod
    def has_no_nulls(self, column: str) -> bool:
        """Return whether the metadata prove that no cell of a column, and no number in its lists, is null."""

    def _tables(self, columns: list[str]) -> Iterator[tuple[pa.Table, Where]]:
        """Yield some columns of all rows, piece by piece."""
        for piece, first in enumerate(self.starts()[:-1]):
            yield self.load(piece, columns), Where(self._place, int(first))

    def _targets(self, table: pa.Table, where: Where) -> np.ndarray:
        values = self._numbers(table, self._label, where)
        return check_finite(values, self._label, where).astype(_stored(self.target_dtype), copy=False)

    def _numbers(self, table: pa.Table, name: str, where: Where) -> np.ndarray:
        """Read a column of numbers, or of lists of numbers, as stored."""
        if not is_list(storage(table[name].type)):
            return numbers(table[name], name, where)
        size = math.prod(self.target_shape if name == self._label else self.input_shape)
        return equal_lists(table[name], name, size, where)

    def _by_piece(self, rows: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (piece, number of its first row, positions of its rows in `rows`)."""
        starts = self.starts()
        pieces = np.searchsorted(starts, rows, side="right") - 1
        order = np.argsort(pieces, kind="stable")
        for where in np.split(order, np.flatnonzero(np.diff(pieces[order])) + 1):
            if len(where):
                piece = int(pieces[where[0]])
                yield piece, int(starts[piece]), where


class ArrowSource(TableSource):
    """An Arrow table in memory, which is sent with the handle; error messages call it `place`."""

    def __init__(self, table: pa.Table, columns: Columns, place: str = "the table"):
        for i, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type):  # such as categories of a DataFrame
                table = table.set_column(i, field.name, table.column(i).cast(field.type.value_type))
        self._table = table
        pieces = [min(PIECE_ROWS, table.num_rows - start) for start in range(0, table.num_rows, PIECE_ROWS)]
        super().__init__(table.schema, pieces, columns, place)
        for name in (*self._inputs.columns, self._label):
            check_nulls(table[name], name, Where(place))

    def has_no_nulls(self, column: str) -> bool:
        """Look at the column itself; see `TableSource.has_no_nulls`."""
        return self._table[column].null_count == 0 and not is_list(storage(self._schema.field(column).type))

    def load(self, piece: int, columns: list[str]) -> pa.Table:
        """Slice the table, without a copy."""
        return self._table.select(columns).slice(piece * PIECE_ROWS, self.piece_rows[piece])

    def fingerprint(self) -> str:
        """Hash the whole content, however the table is cut into chunks."""
        return hash_tables(self.load(piece, list(self._names)) for piece in range(len(self.piece_rows)))


def hash_tables(tables: Iterable[pa.Table], rows: int = 0) -> str:
    """Return the SHA-256 in hex of tables, and of a number of rows that represents the tables left out."""
    # A copy comes first, as Arrow's stream format would also write a slice's neighbours in memory, and show old chunks.
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
    if is_text(kind) or (pa.types.is_dictionary(kind) and is_text(kind.value_type)):
        raise ConfigError(
            f"data.label is {name!r}, a text column, but labels are integers from 0 (or floats for regression): store "
            "each text's number in a column and name that one."
        )
    raise ConfigError(
        f"data.label is {name!r}, a column of {kind}, but integers (or floats for regression), or lists of them, are "
        "expected: convert the column, or name another one."
    )


def _stored(kind: torch.dtype) -> type[np.float32] | type[np.int64]:
    return np.float32 if kind.is_floating_point else np.int64
