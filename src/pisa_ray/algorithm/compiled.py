"""Kernels compiled to one pass over memory, with the same bits as their operations one by one.

torch's ahead-of-time compiler makes a kernel's code in a separate process while rounds go on block by block, so no
process that trains imports a compiler. The user's cache folder keeps the code for later runs, named by everything that
it depends on. A process uses it only after it has reproduced the bits of the plain operations there.
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

#: Entries that a kernel moves block by block before it is compiled; that takes about as long as compiling on one core.
WORTH = 5_000_000_000

#: Number of entries that new code is tried with; it is odd, so that no vector width divides it.
TRIED = 1003

#: Seconds after which a compilation is given up.
COMPILE_SECONDS = 1800.0

#: The file with the code in a folder of the cache, and the file with its hash. Code for GPUs is beside them.
LIBRARY, HASH = "kernel.so", "kernel.sha256"

#: A compiled kernel, which is called with w, g, ... and the numbers as a tensor.
Code: TypeAlias = "Callable[[list[torch.Tensor]], object]"

_when: bool | None = None
_known: dict[tuple[Kernel, torch.device], _Compiling] = {}
_told: set[str] = set()


def use(when: bool | None) -> None:
    """Say whether this process is to use compiled kernels.

    Args:
        when: True: compile each kernel when it is first needed. None: use the code in the cache, and compile a kernel
            once it has moved WORTH entries. False: use none.
    """
    global _when  # noqa: PLW0603  (as torch's own settings, it is one of the process)
    _when = when


def run(kernel: Kernel, vectors: Sequence[torch.Tensor], numbers: Sequence[float]) -> None:
    """Take a kernel's step on all entries, by compiled code if it is ready; see Kernel.__call__ for the arguments."""
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
    """Wait for the compilations under way, at most some seconds; return whether their code is ready."""
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
    """The compilation of a kernel for a device: not begun, under way, ready, or given up."""

    def __init__(self, kernel: Kernel, device: torch.device) -> None:
        self.kernel, self.device = kernel, device
        self.code: Code | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._moved, self._until = 0, 0.0
        self._path: Path | None = cache_folder() / folder_name(kernel, device)
        if os.path.exists(self._path):  # Path.exists would raise where permissions are missing
            self._load()

    def ready(self, entries: int) -> Code | None:
        """Return the code if it is there by now; otherwise count the entries that are moved without it."""
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
            self._until = time.monotonic() + COMPILE_SECONDS
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
        if code is None:  # the time for compiling is over
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
            if is_damaged(self._path):  # the code is made again, as if it were missing
                shutil.rmtree(self._path)
                return
            code = load(self._path, self.device)
            if not same_bits(self.kernel, code, self.device):
                raise RuntimeError("its bits differ from those of the plain operations")
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
    """Return whether another process can import the parts of a kernel, which excludes a second moment of the user's."""
    return kernel.root is None or getattr(rules, getattr(kernel.root, "__name__", ""), None) is kernel.root


def described(kernel: Kernel) -> str:
    """Return a kernel as JSON."""
    root = kernel.root.__name__ if kernel.root else None
    return json.dumps({**{name: getattr(kernel, name) for name in ("rule", "moment", "diagonal", "first", "last")},
                       "root": root})  # fmt: skip


def read(description: str) -> Kernel:
    """Return a kernel from its JSON."""
    fields: dict[str, Any] = json.loads(description)
    return Kernel(**{**fields, "root": getattr(rules, fields["root"]) if fields["root"] else None})


def _packages() -> list[str]:
    """Return the folders of this package and torch, without that of a script, whose files could hide Python's."""
    ours = [str(Path(str(module.__file__)).parents[up]) for module, up in ((rules, 2), (torch, 1))]
    return [*filter(None, [os.environ.get("PYTHONPATH")]), *dict.fromkeys(ours)]


def cache_folder() -> Path:
    """Return the folder of compiled kernels: pisa_ray in the user's cache folder (XDG_CACHE_HOME), or one per login."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not home.is_absolute() or not _writable(home):
        home = Path(tempfile.gettempdir(), f"cache-{os.getuid()}")
    return home / "pisa_ray"


def _writable(folder: Path) -> bool:
    """Return whether a folder can be written to or made."""
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    return os.access(there, os.W_OK | os.X_OK)


def cpu_line(*names: str) -> str:
    """Return the first line on the processor that begins with one of some names; "" if the system has none."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(names):
                return line
    return ""


def processor() -> str:
    """Return the processor's instruction sets, as the system names them."""
    return cpu_line("flags", "Features") or f"{platform.processor()} {torch.backends.cpu.get_cpu_capability()}"


def folder_name(kernel: Kernel, device: torch.device) -> str:
    """Return a name that says all that a kernel's code depends on."""
    parts = [described(kernel), torch.__version__, platform.machine(), processor(), torch.get_num_threads()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    parts += [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (rules, kernel_module)]
    return f"{kernel.name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def load(path: Path, device: torch.device) -> Code:
    """Return the code in a folder of the cache.

    Raises:
        OSError: If it cannot be read.
        RuntimeError: If it is damaged or cannot run here.
    """
    library = str(path / LIBRARY)
    if device.type == "cuda":
        on_gpu: Any = torch._C._aoti.AOTIModelContainerRunnerCuda  # CUDA builds have it
        run: Code = on_gpu(library, 1, str(device), str(path)).run
    else:
        run = torch._C._aoti.AOTIModelContainerRunnerCpu(library, 1).run
    return run


def is_damaged(path: Path) -> bool:
    """Return whether code in the cache differs from what was written; running a cut file would end the process."""
    try:
        return (path / HASH).read_text() != sha256(path / LIBRARY)
    except (OSError, UnicodeDecodeError):
        return True


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trusted(path: Path) -> None:
    """Refuse code that somebody else may have written.

    Raises:
        OSError: If the code or its folders belong to somebody else, or others may write there.
    """
    library = path / LIBRARY
    for place in (path.parent, path, *([library] if os.path.lexists(library) else [])):
        about = place.stat()
        if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(f"{place} can be written by others: make it yours alone, or remove it")


def example(kernel: Kernel, entries: int, device: torch.device) -> tuple[list[torch.Tensor], list[float]]:
    """Return vectors and numbers to try a kernel with, always the same."""
    random = torch.Generator().manual_seed(0)
    row = torch.randn((entries + 1) * kernel.vectors, generator=random).to(device)
    vectors = [row[k * (entries + 1) + 1 :][:entries] for k in range(kernel.vectors)]  # unaligned, as in messages
    if kernel.moment:
        vectors[3].abs_()
    return vectors, [0.3, 1.7, 0.37, 2e-3, 1e-3, 0.97, 0.03, 0.0873][: kernel.count]


def same_bits(kernel: Kernel, code: Code, device: torch.device) -> bool:
    """Return whether compiled code gives the same bits as the kernel operation by operation."""
    (ours, numbers), (theirs, _) = (example(kernel, TRIED, device) for _ in range(2))
    kernel(ours, numbers)
    code([*theirs, torch.tensor(numbers, device=device)])
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(ours, theirs, strict=True))
