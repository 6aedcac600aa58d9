"""Identifying files by what they hold, whatever they are called, wherever they lie and whenever they were written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate

from pyarrow import fs

#: Bytes that are read of files together, and into how many pieces they are cut where the files are larger than that.
MOST, PIECES = 1 << 28, 64


def hash_files(filesystem: fs.FileSystem, files: Sequence[str], *, most: int = MOST, pieces: int = PIECES) -> str:
    """SHA-256, in hex, of files' sizes and bytes in their order; of large files of the bytes of evenly spaced pieces.

    Args:
        filesystem: Where they are.
        files: Their paths there.
        most: Bytes that are read at most.
        pieces: How many pieces they are cut into where the files are larger.

    Raises:
        OSError: One cannot be read.
    """
    sizes = [int(info.size) for info in filesystem.get_file_info(list(files))]
    digest = hashlib.sha256(repr(sizes).encode())
    ends = list(accumulate(sizes))
    total, length = ends[-1], max(most // pieces, 1)
    large = [k * (total - length) // (pieces - 1) for k in range(pieces)]
    starts = large if total > most else range(0, total, length)
    parts = [(start, min(start + length, total)) for start in starts]
    for path, size, end in zip(files, sizes, ends, strict=True):
        first = end - size
        with filesystem.open_input_file(path) as file:
            for start, stop in _within(parts, first, end):
                digest.update(file.read_at(stop - start, start - first))
    return digest.hexdigest()


def _within(parts: Sequence[tuple[int, int]], first: int, end: int) -> Iterator[tuple[int, int]]:
    """What of some parts lies between two places."""
    for start, stop in parts:
        if start < end and stop > first:
            yield max(start, first), min(stop, end)
