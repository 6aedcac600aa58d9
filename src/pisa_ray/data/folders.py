"""The data files below a folder, and the columns in the names of its folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from pisa_ray.errors import ConfigError

#: The most files and folders that are looked at, which takes about a second on a local disk.
MOST_ENTRIES = 100_000

#: The form of a missing value in the name of a folder.
NULL = "__HIVE_DEFAULT_PARTITION__"


def parquet_files(filesystem: fs.FileSystem, root: str, spec: str) -> list[str]:
    """List the Parquet files of a folder, or the file itself if the path is one.

    A path with a part below the folder that begins with "." or "_" and has no "=" is left out, as other tools write
    such files beside the data.

    Args:
        filesystem: The file system of the folder.
        root: Its path in the file system.
        spec: The user's name for it.

    Returns:
        The paths in the order of their names, at least one.

    Raises:
        ConfigError: If the path cannot be reached, has no such file, or more than `MOST_ENTRIES` files and folders.
    """
    try:
        info = filesystem.get_file_info(root)
        if info.type == fs.FileType.File:
            return [root]
        local = isinstance(filesystem, fs.LocalFileSystem)
        found = list(_below(filesystem, root, spec) if local else _all(filesystem, root))
    except ConfigError:
        raise
    except Exception as error:  # clients of object stores raise errors of their own
        raise ConfigError(f"The data {spec!r} cannot be reached ({error}): check address and access rights.") from error
    if info.type == fs.FileType.NotFound and not found:
        raise ConfigError(
            f"The data {spec!r} do not exist: give the path of a Parquet file or of a folder of Parquet files."
        )
    files = sorted(
        path for path in found if path.lower().endswith(".parquet") and not _is_hidden(path.removeprefix(root))
    )
    if not files:
        raise ConfigError(f"The folder {spec!r} has no *.parquet files: give a folder that has some, or one file.")
    return files


def _all(filesystem: fs.FileSystem, root: str) -> Iterator[str]:
    """Yield the files of an object store, with one request for many of them at any depth."""
    for entry in filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True)):
        if entry.type == fs.FileType.File:
            yield entry.path


def _below(filesystem: fs.LocalFileSystem, root: str, spec: str) -> Iterator[str]:
    """Yield the files of a local folder, visiting each folder once even if links lead to it."""
    entries, folders, seen = 0, [root], set[str]()
    while folders:
        folder = folders.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        for entry in filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=folder == root)):
            entries += 1
            if entries > MOST_ENTRIES:
                raise ConfigError(
                    f"The folder {spec!r} has more than {MOST_ENTRIES:,} files and folders below it: give the folder "
                    "that the Parquet files lie in, or move other files away from them."
                )
            if entry.type == fs.FileType.Directory and not _is_hidden(entry.base_name):
                folders.append(entry.path)
            elif entry.type == fs.FileType.File:
                yield entry.path


def _is_hidden(path: str) -> bool:
    return any(part[:1] in (".", "_") and "=" not in part for part in path.split("/"))


class FolderColumns:
    """Columns whose values are in the names of folders, as in `site=lyon/part-0.parquet`, one for all rows of a file.

    Args:
        files: The paths of the files below the data folder.
        stored: The names of the columns in the files themselves, which take precedence.

    Attributes:
        texts: The values from each file's folders, by column.
        fields: The columns, as integers, real numbers or text, whichever fits all values.
    """

    def __init__(self, files: Sequence[str], stored: Collection[str]):
        self._files = files
        self.texts = [dict(_pairs(path)) for path in files]
        names = dict.fromkeys(name for texts in self.texts for name in texts if name not in stored)
        self._values = {name: _read([texts.get(name) for texts in self.texts]) for name in names}
        self.fields = [pa.field(name, column.type) for name, column in self._values.items()]

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def check(self, name: str) -> None:
        """Refuse a column that is missing in some file.

        Raises:
            ConfigError: If there is such a file.
        """
        nulls = self._values[name].is_null().to_pylist()
        if any(nulls):
            path = self._files[nulls.index(True)].lstrip("/")
            found = "names no value" if f"{name}={NULL}/" in path else "lies in none"
            raise ConfigError(
                f"Column {name!r} comes from folders such as {name}=VALUE, but {path} {found}: move that file, or "
                "name another column."
            )

    def column(self, name: str, file: int, rows: int) -> pa.Array:
        """Return the column for some rows of a file."""
        return pa.repeat(self._values[name][file], rows)


def _pairs(path: str) -> Iterator[tuple[str, str]]:
    for part in path.split("/")[:-1]:
        name, sign, value = part.partition("=")
        if sign and name:
            yield unquote(name), unquote(value)


def _read(texts: Sequence[str | None]) -> pa.Array:
    given = {text for text in texts if text not in (None, NULL)}
    readers: list[tuple[Callable[[str], bool], Callable[[str], object], pa.DataType]] = [
        (_is_integer, int, pa.int64()),
        (_is_real, float, pa.float64()),
    ]
    for fits, read, kind in readers:
        if given and all(map(fits, given)):
            return pa.array([None if text in (None, NULL) else read(text) for text in texts], kind)
    return pa.array([None if text == NULL else text for text in texts], pa.string())


def _is_integer(text: str) -> bool:
    """Return whether a text is an integer of 64 bits in its usual form; "007" is not."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(text)) == text


def _is_real(text: str) -> bool:
    digits = text.removeprefix("-").replace(".", "", 1)
    return digits.isascii() and digits.isdigit() and not digits.startswith("00")
