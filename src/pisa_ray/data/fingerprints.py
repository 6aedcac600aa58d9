"""Identification of files by their content, independent of their names, places and times."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate

from pyarrow import fs

#: The most bytes that are read of all files together, and the number of pieces that these are cut into if the files are
#: larger.
MOST, PIECES = 1 << 28, 64


def hash_files(filesystem: fs.FileSystem, files: Sequence[str], *, most: int = MOST, pieces: int = PIECES) -> str:
    """Return the SHA-256 in hex of files' sizes and bytes in order, or of evenly spaced pieces if they are large.

    Args:
        filesystem: The file system of the files.
        files: Their paths in it.
        most: The most bytes that are read.
        pieces: The number of pieces that these bytes are cut into if the files are larger.

    Raises:
        OSError: If a file cannot be read.
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
            for start, stop in ((max(start, first), min(stop, end)) for start, stop in parts):
                if start < stop:
                    digest.update(file.read_at(stop - start, start - first))
    return digest.hexdigest()
