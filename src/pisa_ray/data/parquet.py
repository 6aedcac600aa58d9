"""Parquet files on this machine or in an object store, read by row groups."""

import hashlib
import json
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pisa_ray.data.columns import Columns, check_nulls
from pisa_ray.data.fingerprints import hash_files
from pisa_ray.data.folders import FolderColumns, parquet_files
from pisa_ray.data.tables import TableSource
from pisa_ray.data.where import Where
from pisa_ray.errors import ConfigError


class ParquetSource(TableSource):
    """A Parquet file, or all `*.parquet` files below a folder in the order of their paths.

    The handle has the paths and the footers of the files, so that a worker reads only the row groups that it needs.

    Args:
        spec: A path, or a URI that pyarrow opens (file://, s3://, gs://, hdfs://).
        columns: The columns that the user names.

    Raises:
        ConfigError: If there is no such file, a file is no Parquet file or differs from the others, or a column cannot
            be used. This is known from the metadata; nulls that the statistics do not count appear when reading.
    """

    def __init__(self, spec: str | Path | list[str], columns: Columns):
        several = spec if isinstance(spec, list) else [spec]
        self._filesystem, self._files, root = _find(several)
        self._relative = [path.removeprefix(root) for path in self._files]
        place = f"{spec[0]} and {len(spec) - 1} more" if isinstance(spec, list) and len(spec) > 1 else str(several[0])
        self._footers = [_read_footer(self._filesystem, path) for path in self._files]
        sizes = {
            (file, group): footer.row_group(group).num_rows
            for file, footer in enumerate(self._footers)
            for group in range(footer.num_row_groups)
        }
        self._fingerprint: str | None = None
        self._groups = [place for place, rows in sizes.items() if rows]
        schema = self._footers[0].schema.to_arrow_schema()
        stored = {name for footer in self._footers for name in footer.schema.to_arrow_schema().names}
        self._from_folders = FolderColumns(self._relative, stored)
        for field in self._from_folders.fields:
            schema = schema.append(field)
        pieces = [sizes[group] for group in self._groups]
        super().__init__(schema, pieces, columns, place)
        self._check_files(schema)

    def load(self, piece: int, columns: list[str]) -> pa.Table:
        """Read some columns of one row group."""
        file, group = self._groups[piece]
        with self._open(file) as parquet:
            table = parquet.read_row_group(group, columns=self._stored(columns))
        return self._complete(table, columns, file, self.piece_rows[piece])

    def head(self, columns: list[str]) -> pa.Table:
        """Read some columns of the first row, without its whole row group."""
        file, group = self._groups[0]
        with self._open(file) as parquet:
            batches = parquet.iter_batches(1, row_groups=[group], columns=self._stored(columns))
            return self._complete(pa.Table.from_batches([next(batches)]), columns, file, 1)

    def column(self, name: str) -> np.ndarray:
        """Read one column over all rows; see `Source.column`."""
        if name in self._from_folders:
            self._from_folders.check(name)
        return super().column(name)

    def fingerprint(self) -> str:
        """Hash the content of the files in order and the values from the names of folders; see `hash_files`."""
        if self._fingerprint is None:
            known = [self._from_folders.texts, [_describe(footer) for footer in self._footers]]
            digest = hashlib.sha256(json.dumps(known).encode())
            digest.update(hash_files(self._filesystem, self._files).encode())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _stored(self, columns: list[str]) -> list[str]:
        return [name for name in columns if name not in self._from_folders]

    def _complete(self, table: pa.Table, columns: list[str], file: int, rows: int) -> pa.Table:
        """Add the columns from the names of folders to those of a file."""
        for name in columns:
            if name in self._from_folders:
                table = table.append_column(name, self._from_folders.column(name, file, rows))
        return table

    def _open(self, file: int) -> pq.ParquetFile:
        # Pre-buffering reads a row group's columns in a few large requests, which object stores need.
        path = self._files[file]
        return pq.ParquetFile(path, metadata=self._footers[file], filesystem=self._filesystem, pre_buffer=True)

    def _check_files(self, schema: pa.Schema) -> None:
        for name in {*self._inputs.columns, self._label}:
            if name in self._from_folders:
                self._from_folders.check(name)
        used = self._stored([*self._inputs.columns, self._label])
        for path, footer in zip(self._files, self._footers, strict=True):
            other = footer.schema.to_arrow_schema()
            for name in used:
                if name not in other.names or other.field(name).type != schema.field(name).type:
                    raise ConfigError(
                        f"{path} has no column {name!r} of type {schema.field(name).type}, but {self._files[0]} has: "
                        "put only files of one kind into the folder."
                    )
        for piece, first in enumerate(self.starts()[:-1]):
            self._check_nulls(piece, used, Where(self._place, int(first)))

    def _check_nulls(self, piece: int, columns: list[str], where: Where) -> None:
        """Read columns that have nulls by a row group's statistics, to name the first; these count empty lists, too."""
        for name in columns:
            if self._nulls(piece, name):
                check_nulls(self.load(piece, [name])[name], name, where)

    def has_no_nulls(self, column: str) -> bool:
        """See `TableSource`; the statistics show nulls, and columns from the names of folders were checked before."""
        if column in self._from_folders:
            return True
        return all(self._nulls(piece, column) == 0 for piece in range(len(self.piece_rows)))

    def _nulls(self, piece: int, column: str) -> int | None:
        """Return the number of nulls in a column by a row group's statistics, or None if these do not count them."""
        file, group = self._groups[piece]
        names, total = self._schema.names, 0
        for chunk in _column_chunks(self._footers[file].row_group(group)):
            path = chunk.path_in_schema
            # The path of a column of numbers is its name. Nested columns (lists, images in structs) have longer paths.
            if path != column and (path in names or not path.startswith(f"{column}.")):
                continue
            if path == f"{column}.path":  # an image may lack the path of the file that it was read from
                continue
            if chunk.statistics is None or not chunk.statistics.has_null_count:
                return None
            total += chunk.statistics.null_count
        return total


def _find(several: Sequence[str | Path]) -> tuple[fs.FileSystem, list[str], str]:
    """Find the files of one or more paths; return the file system, the paths in it, and the folder above all."""
    places = [_open_filesystem(spec) for spec in several]
    filesystem = places[0][0]
    if any(other != filesystem for other, _ in places):
        raise ConfigError(
            f"The data {str(several[0])!r} and others of the list lie in different stores: give a list for one store."
        )
    files = [
        path
        for (_, root), spec in zip(places, several, strict=True)
        for path in parquet_files(filesystem, root, str(spec))
    ]
    return filesystem, files, places[0][1] if len(several) == 1 else posixpath.commonpath([root for _, root in places])


def _open_filesystem(spec: str | Path) -> tuple[fs.FileSystem, str]:
    # A local path is made absolute, because workers may run in another folder.
    if isinstance(spec, Path) or "://" not in spec:
        return fs.LocalFileSystem(), str(Path(spec).absolute())
    try:
        filesystem, root = fs.FileSystem.from_uri(spec)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(
            f"The data's address {spec!r} cannot be opened ({error}): give a local path or a URI that pyarrow knows."
        ) from error
    return filesystem, root.rstrip("/")


def _read_footer(filesystem: fs.FileSystem, path: str) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path, filesystem=filesystem)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path} cannot be read as a Parquet file ({error}): {_remedy(path)}.") from error


def _remedy(path: str) -> str:
    """Return the remedy for a file that is no Parquet file, by its format."""
    kind = Path(path).suffix.lower()
    if kind in ("", ".parquet", ".pq"):
        return "write it again"
    return f"only Parquet files are read, so store what the {kind} file holds in one, or give it to Data as a DataFrame"


def _column_chunks(group: pq.RowGroupMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    return (group.column(column) for column in range(group.num_columns))


def _describe(footer: pq.FileMetaData) -> list[list[str | int]]:
    return [
        [
            chunk.path_in_schema,
            chunk.num_values,
            chunk.data_page_offset,
            chunk.total_compressed_size,
            chunk.total_uncompressed_size,
            repr((chunk.statistics.min, chunk.statistics.max)) if chunk.is_stats_set else "",
        ]
        for group in range(footer.num_row_groups)
        for chunk in _column_chunks(footer.row_group(group))
    ]
