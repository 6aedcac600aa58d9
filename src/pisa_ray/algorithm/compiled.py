"""Kernels compiled to one pass over memory, with the bits of the same operations one by one, and the way without.

torch's ahead-of-time compiler makes a kernel's code in a process of its own, while rounds go on block by block; so no
process that trains imports a compiler. Code is kept for later runs in the user's cache folder, by everything that it
depends on. It counts only once it has given, in this process, the bits of the plain operations.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from pisa_ray.algorithm import kernel as kernel_module
from pisa_ray.algorithm import rules
from pisa_ray.algorithm.kernel import Kernel
from pisa_ray.algorithm.layout import blocks
from pisa_ray.later import torch

#: Entries that a kernel moves block by block before it is compiled: about as long as compiling takes on one core.
WORTH = 5_000_000_000

#: Entries that new code is tried with; odd, so that no vector width divides them.
TRIED = 1003

#: Seconds after which a compiler is given up.
PATIENCE = 1800.0

#: The file with the code, in a folder of the cache, and its hash; code for GPUs is beside it.
LIBRARY, HASH = "kernel.so", "kernel.sha256"

#: A compiled kernel: w, g, ... and the numbers as a tensor.
Code: TypeAlias = "Callable[[list[torch.Tensor]], object]"

_when: bool | None = None
_known: dict[tuple[Kernel, torch.device], _Compiling] = {}
_told: set[str] = set()


def use(when: bool | None) -> None:
    """Say whether this process is to use compiled kernels.

    Args:
        when: True: compile each that is met at once. None: use what the cache has, and compile where a kernel has moved
            WORTH entries. False: never.
    """
    global _when  # noqa: PLW0603  (as torch's own settings, it is one of the process)
    _when = when


def run(kernel: Kernel, vectors: Sequence[torch.Tensor], numbers: Sequence[float]) -> None:
    """Take a kernel's step on all entries, compiled where that is ready; see Kernel.__call__ for the arguments."""
    like = vectors[0]
    if _when is not False and len(like) > 1 and like.dtype == torch.float32 and has_name(kernel):
        code = _of(kernel, like.device).ready(len(like))
        if code is not None:
            code([*vectors, torch.tensor(numbers, dtype=torch.float32, device=like.device)])
            return
    weigh = kernel.last and numbers[0] != 1
    for block in blocks(like):
        kernel([x[block] for x in vectors], numbers, weigh=weigh)


def wait(seconds: float) -> bool:
    """Wait until what is being compiled is ready, so many seconds at most; returns whether it is."""
    until = time.monotonic() + seconds
    begun = [compiling for compiling in _known.values() if compiling.process is not None]
    for compiling in begun:
        if compiling.process is not None:
            with suppress(subprocess.TimeoutExpired):
                compiling.process.wait(max(until - time.monotonic(), 0))
            compiling.ready(0)
    return all(compiling.code is not None for compiling in begun)


def _of(kernel: Kernel, device: torch.device) -> _Compiling:
    known = _known.get((kernel, device))
    if known is None:
        known = _known[kernel, device] = _Compiling(kernel, device)
    return known


class _Compiling:
    """One kernel on one device: not asked for yet, being compiled, ready, or given up."""

    def __init__(self, kernel: Kernel, device: torch.device) -> None:
        self.kernel, self.device = kernel, device
        self.code: Code | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._moved, self._until = 0, 0.0
        self._path: Path | None = cache_folder() / folder_name(kernel, device)
        if os.path.exists(self._path):  # not Path.exists, which raises where it may not look
            self._load()

    def ready(self, entries: int) -> Code | None:
        """The code, if it is there by now; counts the entries that are moved without."""
        if self.code is not None or self._path is None:
            return self.code
        if self.process is not None:
            if self.process.poll() is not None or time.monotonic() > self._until:
                self._end()
            return self.code
        self._moved += entries
        if _when or self._moved >= WORTH:
            self._begin()
        return None

    def _begin(self) -> None:
        assert self._path is not None  # noqa: S101  (for the type checker)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (until the process ends)
            self._until = time.monotonic() + PATIENCE
            self.process = subprocess.Popen(  # noqa: S603  (ourselves)
                [sys.executable, "-P", "-m", "pisa_ray.algorithm.compiler", str(self._path), described(self.kernel),
                 self.device.type, str(torch.get_num_threads())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_packages())},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
            )  # fmt: skip
        except OSError as error:
            self._give_up(str(error))

    def _end(self) -> None:
        assert self.process is not None  # noqa: S101  (for the type checker)
        code, process, self.process = self.process.returncode, self.process, None
        if code is None:  # it has had all the time that it may have
            process.kill()
            process.wait()
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        if code == 0:
            self._load()
        else:
            self._give_up((errors or ["the compiler was stopped"])[-1])

    def _load(self) -> None:
        assert self._path is not None  # noqa: S101  (for the type checker)
        try:
            trusted(self._path)
            if is_damaged(self._path):  # it is made again, like what is not there
                shutil.rmtree(self._path)
                return
            code = load(self._path, self.device)
            if not same_bits(self.kernel, code, self.device):
                raise RuntimeError("its bits are others than those of the plain operations")
        except (OSError, RuntimeError, ValueError) as error:
            self._give_up(str(error).splitlines()[0])
        else:
            self.code = code

    def _give_up(self, why: str) -> None:
        path, self._path = self._path, None
        if why not in _told:
            _told.add(why)
            there = path is not None and os.path.lexists(path)
            remedy = (
                "remove that folder to have it made again" if there else "compiling takes a C++ compiler and a cache"
            )
            warnings.warn(
                f"the compiled step {path} is not used ({why}): steps go operation by operation, with the same bits, "
                f"and take longer; {remedy}",
                stacklevel=2,
            )


def has_name(kernel: Kernel) -> bool:
    """Whether another process can find what a kernel is made of: not a second moment of somebody's own."""
    return kernel.root is None or getattr(rules, getattr(kernel.root, "__name__", ""), None) is kernel.root


def described(kernel: Kernel) -> str:
    """A kernel as JSON."""
    root = kernel.root.__name__ if kernel.root else None
    return json.dumps({**{name: getattr(kernel, name) for name in ("rule", "moment", "diagonal", "first", "last")},
                       "root": root})  # fmt: skip


def read(description: str) -> Kernel:
    """A kernel from its JSON."""
    fields: dict[str, Any] = json.loads(description)
    return Kernel(**{**fields, "root": getattr(rules, fields["root"]) if fields["root"] else None})


def _packages() -> list[str]:
    """Where another process finds this package and torch: not the folder of a script, whose files can hide Python's."""
    ours = [str(Path(str(module.__file__)).parents[up]) for module, up in ((rules, 2), (torch, 1))]
    return [*filter(None, [os.environ.get("PYTHONPATH")]), *dict.fromkeys(ours)]


def cache_folder() -> Path:
    """Where compiled kernels are kept: pisa_ray in the user's cache folder (XDG_CACHE_HOME), or of this login's own."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not home.is_absolute() or not _writable(home):
        home = Path(tempfile.gettempdir(), f"cache-{os.getuid()}")
    return home / "pisa_ray"


def _writable(folder: Path) -> bool:
    """Whether a folder can be written to, or be made."""
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    return os.access(there, os.W_OK | os.X_OK)


def processor() -> str:
    """What the processor can do, as compilers see it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return f"{platform.processor()} {torch.backends.cpu.get_cpu_capability()}"


def folder_name(kernel: Kernel, device: torch.device) -> str:
    """A name that says all that a kernel's code depends on."""
    parts = [described(kernel), torch.__version__, platform.machine(), processor(), torch.get_num_threads()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    parts += [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (rules, kernel_module)]
    return f"{kernel.name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def load(path: Path, device: torch.device) -> Code:
    """The code in a folder of the cache.

    Raises:
        OSError: It cannot be read.
        RuntimeError: It is damaged, or cannot be run here.
    """
    library = str(path / LIBRARY)
    if device.type == "cuda":
        on_gpu: Any = torch._C._aoti.AOTIModelContainerRunnerCuda  # of CUDA builds
        run: Code = on_gpu(library, 1, str(device), str(path)).run
    else:
        run = torch._C._aoti.AOTIModelContainerRunnerCpu(library, 1).run
    return run


def is_damaged(path: Path) -> bool:
    """Whether code of the cache is not what was written there; to run what is cut short would end the process."""
    try:
        return (path / HASH).read_text() != sha256(path / LIBRARY)
    except (OSError, UnicodeDecodeError):
        return True


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trusted(path: Path) -> None:
    """Refuse code that somebody else can have written.

    Raises:
        OSError: The code or its folders belong to somebody else, or others may write there.
    """
    library = path / LIBRARY
    for place in (path.parent, path, *([library] if os.path.lexists(library) else [])):
        about = place.stat()
        if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(f"{place} can be written by others: make it yours alone, or remove it")


def example(kernel: Kernel, entries: int, device: torch.device) -> tuple[list[torch.Tensor], list[float]]:
    """Vectors and numbers that a kernel can be tried with, always the same."""
    random = torch.Generator().manual_seed(0)
    row = torch.randn((entries + 1) * kernel.vectors, generator=random).to(device)
    vectors = [row[k * (entries + 1) + 1 :][:entries] for k in range(kernel.vectors)]  # not aligned, as in messages
    if kernel.moment:
        vectors[3].abs_()
    return vectors, [0.3, 1.7, 0.37, 2e-3, 1e-3, 0.97, 0.03, 0.0873][: kernel.count]


def same_bits(kernel: Kernel, code: Code, device: torch.device) -> bool:
    """Whether code does what a kernel does operation by operation, to the last bit."""
    (ours, numbers), (theirs, _) = (example(kernel, TRIED, device) for _ in range(2))
    kernel(ours, numbers)
    code([*theirs, torch.tensor(numbers, device=device)])
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(ours, theirs, strict=True))
