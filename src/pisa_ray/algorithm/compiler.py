"""The command that compiles one kernel into a folder of the cache, run as a separate process.

python -m pisa_ray.algorithm.compiler PATH KERNEL DEVICE THREADS
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
import torch._inductor
from torch import nn

from pisa_ray.algorithm.compiled import HASH, LIBRARY, example, read, sha256
from pisa_ray.algorithm.kernel import Kernel

#: The compiler may not contract two operations into one that rounds once, nor reorder any, nor leave other files.
EXACT = {
    "cpp.enable_floating_point_contract_flag": "off",
    "aot_inductor.compile_wrapper_opt_level": "O0",
    "cpp.enable_unsafe_math_opt_flag": False,
    "emulate_precision_casts": True,
    "cpp_cache_precompile_headers": False,
    "compile_threads": 1,
}


class Pass(nn.Module):
    """A kernel as a module, which the compiler needs.

    Args:
        kernel: The kernel.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, vectors: list[torch.Tensor], numbers: torch.Tensor) -> tuple[()]:
        """Take the step, in place."""
        self.kernel(vectors, numbers.unbind())
        return ()


def compile_kernel(path: Path, kernel: Kernel, device: torch.device) -> None:
    """Write a kernel's code, for any number of entries above 1, unless it is there already."""
    with path.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process per machine at a time
        if path.exists():
            return
        for left in path.parent.glob("tmp*"):  # a compiler that was killed left it
            shutil.rmtree(left, ignore_errors=True)
        vectors, numbers = example(kernel, 4096, device)
        entries = torch.export.Dim("entries", min=2)
        with torch.no_grad():
            exported = torch.export.export(
                Pass(kernel),
                (vectors, torch.tensor(numbers, device=device)),
                dynamic_shapes=([{0: entries}] * len(vectors), None),
            )
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder, "inductor"))
            package, code = Path(folder, "kernel.pt2"), Path(folder, path.name)
            torch._inductor.aoti_compile_and_package(exported, package_path=str(package), inductor_configs=EXACT)
            unpack(package, code)
            code.rename(path)


def unpack(package: Path, folder: Path) -> None:
    """Extract the code from a package: the library, and the files of GPU code beside it."""
    folder.mkdir(mode=0o700)
    with zipfile.ZipFile(package) as files:
        for name in files.namelist():
            if name.endswith((".so", ".cubin")):
                (folder / (LIBRARY if name.endswith(".so") else Path(name).name)).write_bytes(files.read(name))
    (folder / HASH).write_text(sha256(folder / LIBRARY))
    for file in folder.iterdir():  # before the folder gets its name
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def main() -> None:
    """Read the command line, and compile at a low priority beside the training."""
    path, kernel, device, threads = sys.argv[1:]
    os.nice(10)
    os.umask(0o077)  # code that others may write is not run
    torch.set_num_threads(int(threads))
    os.environ["TRITON_DEFAULT_FP_FUSION"] = "0"  # GPUs may not contract operations either
    compile_kernel(Path(path), read(kernel), torch.device(device))


if __name__ == "__main__":
    main()
