"""Files on a local disk or in an object store, in a folder that can be sent to every process of a run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import fs
from safetensors import safe_open
from safetensors.torch import load, save

from pisa_ray.engine.json_text import parse
from pisa_ray.engine.local_files import local_folders, local_size, make_folder, read_file, write_file
from pisa_ray.engine.numerics import borrowed_tensor
from pisa_ray.errors import ConfigError, PisaError

#: The errors of pyarrow and the file systems behind it.
FAILURES = (OSError, pa.ArrowException)

#: Bytes read at a time, and the largest header of a safetensors file.
CHUNK, HEADER = 1 << 20, 100_000_000

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Folder:
    """A folder in a file system of pyarrow. In an object store nothing is renamed or appended to.

    Attributes:
        path: The path in the file system, without a slash at the end.
        filesystem: The file system, which can be sent to workers, so that they write and read themselves.

    Example:
        >>> import tempfile
        >>> folder = Folder.of(tempfile.mkdtemp()) / "x"
        >>> folder.create()
        >>> entry = folder.write_tensors("a.safetensors", {"w": torch.ones(2)})
        >>> folder.check(entry)
        >>> folder.read_tensors(entry, ["w"])["w"].tolist()
        [1.0, 1.0]
    """

    path: str
    filesystem: fs.FileSystem = field(default_factory=fs.LocalFileSystem)

    @classmethod
    def of(cls, place: Folder | Path | str, filesystem: fs.FileSystem | None = None) -> Folder:
        """Make a folder of a local path, a URI such as s3://bucket/prefix, or a path in a given file system.

        Raises:
            ConfigError: If the URI's file system is unknown or does not answer.
        """
        if isinstance(place, Folder):
            return place
        if filesystem is not None and not isinstance(filesystem, fs.LocalFileSystem):
            return cls(str(place).rstrip("/"), filesystem)
        if "://" not in str(place):
            return cls(str(Path(place).expanduser().resolve()))
        try:
            found, path = fs.FileSystem.from_uri(str(place))
        except (*FAILURES, ValueError) as error:
            shown = re.sub(r"//[^/@]*@", "//", str(place))  # no credentials in messages
            raise ConfigError(
                f"{shown} cannot be opened ({error}): use a local folder or a URI such as s3://bucket/prefix."
            ) from error
        return cls(path.rstrip("/") or "/", found)

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a disk of this machine, or mounted there."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        kind = re.split(r"[:+]", self.filesystem.type_name)[-1]  # file systems in Python are called py::fsspec+name
        return self.path if self.is_local else f"{kind}://{self.path}"

    @property
    def above(self) -> Folder:
        """The folder that it is in."""
        return Folder(self.path.rpartition("/")[0], self.filesystem)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self._at(name), self.filesystem)

    def create(self) -> None:
        """Make the folder, with its parents, unless it exists."""
        with self._telling(""):
            if self.is_local:
                make_folder(Path(self.path))
            else:
                self.filesystem.create_dir(self.path, recursive=True)

    def folders(self) -> list[str]:
        """Return the names of the folders in it, sorted and without links; none if it is missing itself."""
        with self._telling("", "read"):
            if self.is_local:
                return local_folders(Path(self.path))
            found = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def has(self, name: str) -> bool:
        """Return whether a file is in it."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Return the number of bytes of a file, or None if there is no such file."""
        with self._telling(name, "read"):
            if self.is_local:
                return local_size(Path(self._at(name)))
            info = self.filesystem.get_file_info(self._at(name))
        return int(info.size) if info.type == fs.FileType.File else None

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._telling(name):
            if self.is_local:
                Path(self._at(name)).unlink()
            else:
                self.filesystem.delete_file(self._at(name))

    def delete(self) -> None:
        """Remove the folder and its content, as far as possible; files that others write meanwhile may stay."""
        if self.is_local:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            with suppress(*FAILURES):
                self.filesystem.delete_dir(self.path)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all, and on local disks for good.

        Raises:
            PisaError: If it cannot be written.
        """
        with self._telling(name):
            if self.is_local:
                write_file(Path(self._at(name)), data)
            else:
                with self.filesystem.open_output_stream(self._at(name)) as stream:
                    stream.write(data)

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            PisaError: If it cannot be read.
        """
        with self._telling(name, "read"):
            if self.is_local:
                return read_file(Path(self._at(name)))
            with self._opened(name) as stream:
                return bytes(stream.read())

    def copy_in(self, path: Path) -> None:
        """Copy a local file into the folder, under its own name."""
        at = self._at(path.name)
        with self._telling(path.name), path.open("rb") as source, self.filesystem.open_output_stream(at) as stream:
            shutil.copyfileobj(source, stream, CHUNK)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        self.write(name, (json.dumps(value, indent=1) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Read a JSON file.

        Raises:
            ConfigError: If it is not JSON.
        """
        try:
            return parse(self.read(name))
        except ValueError as error:
            raise ConfigError(f"{self}/{name} is damaged: it is not JSON ({error}).") from error

    def write_tensors(self, name: str, tensors: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, Any]:
        """Write tensors as safetensors.

        Returns:
            The file's entry in a manifest: {"file": name, "bytes": size, "sha256": hash}.
        """
        data = save({key: _on_host(tensor) for key, tensor in tensors.items()})
        self.write(name, data)
        return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def check(self, entry: Mapping[str, Any]) -> None:
        """Compare a file with its entry in a manifest.

        Raises:
            ConfigError: If the file lies elsewhere, is missing, of another size, or altered.
        """
        remedy = "remove this checkpoint's folder to resume from an older one."
        if self.size(entry["file"]) != entry["bytes"]:
            raise ConfigError(f"{self}/{entry['file']} is missing or cut off: {remedy}")
        with self._telling(entry["file"], "read"), self._opened(entry["file"]) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != entry["sha256"]:
            raise ConfigError(f"{self}/{entry['file']} has been altered: {remedy}")

    def read_tensors(
        self,
        entry: Mapping[str, Any],
        names: Iterable[str] | Callable[[str], bool],
        like: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Read some tensors of a safetensors file; nothing is unpickled.

        Args:
            entry: The file's entry in a manifest.
            names: The tensors' names, or a function that returns whether a name is wanted.
            like: The expected names, shapes and types, which are compared before anything is read.

        Raises:
            ConfigError: If the file is not safetensors, or its tensors are not those expected.
        """
        name, path = entry["file"], self._at(entry["file"])
        try:
            header = self._header(name, entry["bytes"])
            wanted = [key for key in header if names(key)] if callable(names) else list(names)
            self._compare(name, {key: header.get(key) for key in wanted}, like)
            if not self.is_local:
                everything = load(self.read(name))
                return {key: everything[key] for key in wanted}
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in wanted}
        except PisaError:
            raise
        except Exception as error:  # safetensors raises its own types
            raise ConfigError(
                f"{self}/{name} cannot be read as safetensors ({error}): remove its folder to resume from an older one."
            ) from error

    def _opened(self, name: str) -> Any:
        """Open a file for reading."""
        return Path(self._at(name)).open("rb") if self.is_local else self.filesystem.open_input_stream(self._at(name))

    def _header(self, name: str, whole: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the types and shapes in a file of so many bytes, by name."""
        with self._opened(name) as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= min(whole, HEADER):
                raise ValueError(f"its header should be {size} bytes long")
            header = json.loads(file.read(size))
        return {key: (v["dtype"], tuple(v["shape"])) for key, v in header.items() if key != "__metadata__"}

    def _compare(
        self,
        name: str,
        found: Mapping[str, tuple[str, tuple[int, ...]] | None],
        like: Mapping[str, torch.Tensor] | None,
    ) -> None:
        expected = {key: (_DTYPES[t.dtype], tuple(t.shape)) for key, t in (like or {}).items()}
        for key in sorted({*found, *expected}):
            there, here = found.get(key), expected.get(key)
            if there is None or (like is not None and there != here):
                raise ConfigError(
                    f"{self}/{name} has {_shown(there)} for {key}, but this run needs {_shown(here)}: resume with the "
                    "model and method that the run was started with."
                )

    def _at(self, name: object) -> str:
        """Return the path of something directly in this folder."""
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise ConfigError(f"{self} names the file {name!r}, but its files must lie in the folder itself.")
        return f"{self.path}/{name}"

    @contextmanager
    def _telling(self, name: str, what: str = "written") -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            where = f"{self}/{name}".rstrip("/")
            raise PisaError(
                f"{where} cannot be {what} ({error}); resume=True goes on from the last complete checkpoint."
            ) from error


def _shown(kind: tuple[str, tuple[int, ...]] | None) -> str:
    return f"{kind[0]} {list(kind[1])}" if kind else "nothing"


def _on_host(tensor: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, np.ndarray):
        tensor = borrowed_tensor(tensor)
    return tensor.detach().cpu().contiguous()
