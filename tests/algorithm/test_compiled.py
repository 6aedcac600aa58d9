"""When kernels are compiled and when they are used, and that they have the bits of the plain operations."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from problems import Known, state_sha256

from pisa_ray.algorithm import NSISA, PISA, SISA, SISAD, Layout, RowLayout, SecondMoment, Task, compiled, rules
from pisa_ray.algorithm.kernel import Kernel

CPU = torch.device("cpu")
SISA_D = Kernel("sisa_d", rules.adam, moment=True, diagonal=True)
KERNELS = [
    SISA_D,
    Kernel("sisa_d", rules.adam, moment=True, diagonal=True, last=False),
    Kernel("sisa_d", rules.adam, moment=True, diagonal=True, first=False),
    Kernel("sisa", rules.adam, moment=True),
    Kernel("sisa", rules.adagrad, moment=True, first=False, last=False),
    Kernel("nsisa", rules.instantaneous),
    Kernel("pisa"),
    Kernel("pisa_diagonal", moment=True),
]


@pytest.fixture(autouse=True)
def cache(request, tmp_path, monkeypatch):
    """A cache folder of the test's own, or of all that really compile, and nothing known yet."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "_known", {})
    monkeypatch.setattr(compiled, "_told", set())
    yield tmp_path / "pisa_ray"
    compiled.use(None)


class Loader:
    """Stands for torch's loader of compiled code: runs the kernel operation by operation, perhaps a little wrong."""

    wrong = False
    loaded = 0

    def __init__(self, path, runners):
        Loader.loaded += 1
        if Path(path).read_text() == "damaged":
            raise RuntimeError("no such archive\nat somewhere")

    def run(self, given):
        *vectors, numbers = given
        SISA_D(vectors, numbers.unbind())
        if Loader.wrong:
            vectors[2][7] = vectors[2][7].nextafter(torch.tensor(9.0))


@pytest.fixture
def loader(monkeypatch):
    monkeypatch.setattr(torch._C._aoti, "AOTIModelContainerRunnerCpu", Loader)
    monkeypatch.setattr(Loader, "wrong", False)
    monkeypatch.setattr(Loader, "loaded", 0)


class Process:
    """Stands for the compiler's process, which ends when it is told to."""

    begun: ClassVar[list[Process]] = []

    def __init__(self, command, **options):
        self.path, self.returncode, self.errors = Path(command[4]), None, options["stderr"]
        self.environment = options["env"]
        self.begun.append(self)

    def poll(self):
        return self.returncode

    def kill(self):
        self.returncode = -9

    def wait(self):
        return self.returncode

    def end(self, error=""):
        self.errors.write(error.encode())
        self.returncode = int(bool(error))
        if not error:
            self.path.mkdir(mode=0o700)
            code(self.path)


def code(folder, text="code"):
    """What a compiler leaves in a folder."""
    library = folder / compiled.LIBRARY
    library.write_text(text)
    library.chmod(0o600)
    (folder / compiled.HASH).write_text(compiled.sha256(library))
    return library


@pytest.fixture
def process(monkeypatch):
    monkeypatch.setattr(compiled.subprocess, "Popen", Process)
    monkeypatch.setattr(Process, "begun", [])
    return Process


def put(cache, text="code"):
    folder = cache / compiled.folder_name(SISA_D, CPU)
    folder.mkdir(mode=0o700, parents=True)
    return code(folder, text)


def stepped(entries=1003, steps=3):
    """The vectors after a few steps."""
    vectors, numbers = compiled.example(SISA_D, entries, CPU)
    for _ in range(steps):
        compiled.run(SISA_D, vectors, numbers)
    return torch.cat(vectors)


def plain():
    vectors, numbers = compiled.example(SISA_D, 1003, CPU)
    for _ in range(3):
        SISA_D(vectors, numbers)
    return torch.cat(vectors)


def test_what_the_cache_has_is_used_from_the_first_step(cache, loader, process):
    put(cache)
    assert torch.equal(stepped(), plain())
    assert Loader.loaded == 1
    assert not process.begun


def test_never_is_never(cache, loader, process):
    put(cache)
    compiled.use(False)
    assert torch.equal(stepped(), plain())
    assert Loader.loaded == 0
    assert not process.begun


@pytest.mark.parametrize("fault", ["wrong bits", "cannot be loaded", "others may write"])
def test_code_that_cannot_be_trusted_is_told_once_and_not_used(cache, loader, process, monkeypatch, fault):
    path = put(cache, "damaged" if fault == "cannot be loaded" else "code")
    if fault == "others may write":
        path.chmod(0o666)
    monkeypatch.setattr(Loader, "wrong", fault == "wrong bits")
    with pytest.warns(UserWarning, match="is not used .*: steps go operation by operation, with the same bits") as told:
        assert torch.equal(stepped(), plain())
    assert len(told) == 1
    assert not process.begun


@pytest.mark.parametrize("fault", ["cut short", "no hash", "no text", "no code"])
def test_damaged_code_is_made_again(cache, loader, process, fault):
    path = put(cache)
    if fault == "cut short":
        path.write_text("cod")
    elif fault == "no text":
        path.with_name(compiled.HASH).write_bytes(b"\xff\xfe")
    else:
        (path if fault == "no code" else path.with_name(compiled.HASH)).unlink()
    compiled.use(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(stepped(), plain())
        process.begun[0].end()
        assert torch.equal(stepped(), plain())
    assert Loader.loaded == 1


def test_a_kernel_is_compiled_once_it_has_moved_as_much_as_that_is_worth(loader, process, monkeypatch):
    monkeypatch.setattr(compiled, "WORTH", 2500)
    stepped(steps=2)
    assert not process.begun
    stepped(steps=3)
    assert len(process.begun) == 1
    assert Loader.loaded == 0
    process.begun[0].end()
    before = Loader.loaded
    assert torch.equal(stepped(), plain())  # a change-over: bits stay
    assert (before, Loader.loaded) == (0, 1)
    assert len(process.begun) == 1


def test_at_once_where_it_is_asked_for_and_in_mid_run_with_the_same_bits(loader, process):
    compiled.use(True)
    vectors, numbers = compiled.example(SISA_D, 1003, CPU)
    compiled.run(SISA_D, vectors, numbers)
    process.begun[0].end()
    compiled.run(SISA_D, vectors, numbers)
    compiled.run(SISA_D, vectors, numbers)
    assert Loader.loaded == 1
    assert torch.equal(torch.cat(vectors), plain())


def test_without_a_compiler_it_is_said_once_why(loader, process):
    compiled.use(True)

    def fails():
        stepped(steps=1)
        process.begun[0].end("Traceback\nno C++ compiler")
        assert torch.equal(stepped(), plain())
        return len(process.begun)

    with pytest.warns(UserWarning, match=r"is not used \(no C\+\+ compiler\)") as told:
        assert fails() == 1
    assert len(told) == 1


def test_a_compiler_that_does_not_end_is_given_up(loader, process, monkeypatch):
    compiled.use(True)
    monkeypatch.setattr(compiled, "COMPILE_SECONDS", -1.0)
    with pytest.warns(UserWarning, match="the compiler was stopped") as told:
        assert torch.equal(stepped(), plain())
    assert len(told) == 1
    assert process.begun[0].returncode == -9


def test_a_reason_is_told_once_however_many_kernels_have_it(process, tmp_path):
    (tmp_path / "pisa_ray").write_text("a file")
    compiled.use(True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for kernel in KERNELS:
            vectors, numbers = compiled.example(kernel, 9, CPU)
            compiled.run(kernel, vectors, numbers)
    assert len({str(one.message) for one in told}) == len(told) <= 2


@pytest.mark.skipif(os.getuid() == 0, reason="root may look everywhere")
def test_a_cache_that_may_not_be_looked_into_is_none(process, tmp_path):
    tmp_path.chmod(0)
    try:
        assert torch.equal(stepped(), plain())
    finally:
        tmp_path.chmod(0o700)


def test_another_processor_has_other_code(monkeypatch):
    here = compiled.folder_name(SISA_D, CPU)
    monkeypatch.setattr(compiled, "processor", lambda: "flags : fpu avx2")
    assert compiled.folder_name(SISA_D, CPU) != here


def test_a_cache_folder_that_cannot_be_made_is_told(process, monkeypatch, tmp_path):
    (tmp_path / "pisa_ray").write_text("a file")
    compiled.use(True)
    with pytest.warns(UserWarning, match="is not used"):
        assert torch.equal(stepped(), plain())
    assert not process.begun


def test_a_scripts_files_do_not_hide_the_compilers_modules(process, monkeypatch, tmp_path):
    (tmp_path / "statistics.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path))
    compiled.use(True)
    stepped(steps=1)
    assert str(tmp_path) not in process.begun[0].environment["PYTHONPATH"].split(os.pathsep)


def test_other_kernels_have_other_folders():
    assert len({compiled.folder_name(Kernel("given", moment=m, diagonal=d), CPU) for m in (0, 1) for d in (0, 1)}) == 4


def test_the_cache_is_where_it_can_be_written(monkeypatch, tmp_path):
    (tmp_path / "locked" / "cache").mkdir(parents=True)
    writable = os.access
    locked = {str(tmp_path / "locked"), str(tmp_path / "locked" / "other")}
    monkeypatch.setattr(os, "access", lambda place, mode: str(place) not in locked and writable(place, mode))
    for given, used in (("locked/cache", True), ("locked/other/one", False), ("not/yet", True)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / given))
        assert (compiled.cache_folder() == tmp_path / given / "pisa_ray") is used
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert compiled.cache_folder().is_absolute()


def test_second_moments_of_ones_own_and_other_types_go_operation_by_operation(process):
    class Mine(SecondMoment):
        root = staticmethod(lambda m, d, half: m.mul_(half).add_(d.abs()))

        def numbers(self, k):
            return (0.5,)

    compiled.use(True)
    layout, w = Layout.of([("w", (6,), False)]), torch.ones(6)
    partial = Mine()
    partial.root = functools.partial(lambda m, d, half, more: m.mul_(half).add_(d.abs() * more), more=2)
    for method, point in (
        (SISA(sigma=1, rho=1, second_moment=Mine()), w),
        (SISA(sigma=1, rho=1, second_moment=partial), w),
        (SISA(sigma=1, rho=1), w.double()),
    ):
        rows = RowLayout(6)
        message = rows.split(point.new_empty(rows.width))
        method.step(method.initial_state(point, layout), Task(point, lambda g=point: Known(g), 1.0, layout), message)
        assert message.N.isfinite().all()
    assert not process.begun
    assert not compiled._known


def test_a_kernel_is_what_its_description_says():
    for kernel in KERNELS:
        assert compiled.read(compiled.described(kernel)) == kernel
        vectors, numbers = compiled.example(kernel, 10, CPU)
        kernel(vectors, numbers)  # as many vectors and numbers as it takes
    assert len({kernel.name for kernel in KERNELS}) == len(KERNELS)


def test_training_imports_no_compiler():
    code = (
        "import sys, torch; from pisa_ray.algorithm import compiled; from test_compiled import SISA_D, CPU\n"
        "v, n = compiled.example(SISA_D, 99, CPU); compiled.run(SISA_D, v, n)\n"
        "sys.exit(', '.join(m for m in ('torch._inductor', 'torch._dynamo', 'sympy') if m in sys.modules) or None)"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [SISA_D, KERNELS[4]], ids=lambda kernel: kernel.name)
def test_the_real_compiler_gives_the_same_bits_for_any_size_and_place(kernel):
    """Its own check is on one size; here on many, from odd places, with zeros, in the numerics of a worker."""
    compiled.use(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vectors, numbers = compiled.example(kernel, 33, CPU)
        compiled.run(kernel, vectors, numbers)
        assert compiled.wait(300)
    code = compiled._known[kernel, CPU].code
    torch.set_flush_denormal(True)
    for entries in (2, 3, 15, 16, 17, 64, 1000, 70_001):
        ours, numbers = compiled.example(kernel, entries, CPU)
        ours[1][::3] = 0
        ours[2][::6] = 0
        theirs = [x.clone() for x in ours]
        for _ in range(3):
            kernel(ours, numbers)
            code([*theirs, torch.tensor(numbers)])
        assert all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        SISAD(sigma=60, rho=540, local_steps=2),
        NSISA(sigma=20, rho=80, rest=SISAD(sigma=30, rho=570)),
        PISA(sigma=3, rho=2),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_step_of_a_method_is_the_same_compiled(method):
    layout = Layout.of([("a", (40, 30), True), ("b", (33,), False), ("h", (10, 40), True)], heads=["h"])
    random = torch.Generator().manual_seed(0)
    w = torch.randn(layout.size, generator=random)
    gradients = torch.randn(20, layout.size, generator=random)

    def run(when):
        compiled.use(when)
        shard = method.initial_state(w, layout)
        rows = RowLayout(layout.size, method.penalties(layout).size)
        row = torch.zeros(rows.width)
        for r in range(5):
            given = iter(gradients[r * 2 : r * 2 + 2])
            task = Task(
                w, lambda given=given: Known(next(given).clone()), 1.7, layout, steps=method.local_steps, alpha=0.3
            )
            method.step(shard, task, rows.split(row))
            rows.complete(row, 0.3, w[:0], weighed=True)
            if when and r == 1:  # the first two eagerly, then compiled
                assert compiled.wait(600)
        return row, state_sha256(shard)

    (one, state), (other, its) = run(False), run(True)
    assert torch.equal(one.view(torch.int32), other.view(torch.int32))
    assert state == its
