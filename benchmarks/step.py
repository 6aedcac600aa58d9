"""What a local step with its message costs, beside optimizers of torch on as many parameters.

    python benchmarks/step.py [--entries 1e5 1e6 1e7 1e8] [--threads 1 2] [--rounds 15] [--only vectors] [--eager]

All take turns in one process, each on new random gradients; medians, in nanoseconds per parameter, and in brackets the
ratio to torch's fused Adam, the median of those of single turns. With one thread this is the processor's time, so that
what else runs on the machine matters less; with more it is the clock's. The last columns: bytes per parameter that must
move at least, and how many times as long as a copy that moves as many the step takes at the largest size. What is read
moves once, and so does what is written; a cache reads, too, what is written without having been read.

The second table has the matrices of a GPT-2 block (768 and 3072 wide): NSISA beside Muon, and beside the products of
five Newton-Schulz steps alone, which are the limit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pisa_ray.algorithm import NSISA, PISA, SISA, SISAD, Layout, Method, RowLayout, Task, compiled
from pisa_ray.engine.numerics import set_numerics

#: A turn has so many parameters' steps at least, so that short steps can be timed.
TURN = 2_000_000

#: Vectors that all contestants and their temporary results take together, of as many entries as there are parameters.
VECTORS = 26

ADAM = "Adam, fused"

#: The weight of the shard that steps.
ALPHA = 0.1

#: The matrices of a block of GPT-2.
BLOCK = ((768, 2304), (768, 768), (768, 3072), (3072, 768))


@dataclass
class Drawn:
    """A mini-batch whose gradient is known."""

    g: torch.Tensor

    def gradient(self, point: torch.Tensor, term: object = None) -> torch.Tensor:
        return self.g

    def curvature(self, point: torch.Tensor) -> None:  # what Q = I asks for, and does not look at
        return None


@dataclass
class Contestant:
    """Something to be timed.

    Attributes:
        step: One step.
        least: Bytes per parameter that must move.
    """

    step: Callable[[], object]
    least: int = 0


def of_library(
    method: Method, w: torch.Tensor, g: torch.Tensor, row: torch.Tensor, layout: Layout, least: int
) -> Contestant:
    """A shard's report: its step and its message, ready for the sum."""
    shard, rows = method.initial_state(w, layout), RowLayout(layout.size, method.penalties(layout).size)
    said, task = row[: rows.width], Task(w, lambda: Drawn(g), float(method.sigma), layout, alpha=ALPHA)

    def step() -> None:
        method.step(shard, task, rows.split(said))
        rows.complete(said, ALPHA, w[:0], weighed=True)

    return Contestant(step, least)


def of_torch(
    kind: Callable[..., torch.optim.Optimizer],
    w: torch.Tensor,
    g: torch.Tensor,
    layout: Layout,
    least: int = 0,
    **options: object,
) -> Contestant:
    parameters = [torch.nn.Parameter(view) for view in layout.views(w.clone()).values()]
    for parameter, view in zip(parameters, layout.views(g).values(), strict=True):
        parameter.grad = view
    return Contestant(kind(parameters, lr=1e-4, **options).step, least)


def vectors(p: int, g: torch.Tensor) -> dict[str, Contestant]:
    """Contestants on one vector of parameters."""
    layout = Layout.of([("w", (p,), False)])
    w, row, other = torch.randn(p) * 0.1, torch.empty(2 * p + 1), torch.empty(p)
    return {
        "SISA-D": of_library(SISAD(sigma=60.0, rho=540.0), w, g, row, layout, 40),
        "SISA": of_library(SISA(sigma=60.0, rho=540.0), w, g, row, layout, 32),
        "PISA, Q = I": of_library(PISA(sigma=60.0, rho=60.0), w, g, row, layout, 24),
        ADAM: of_torch(torch.optim.Adam, w, g, layout, 28, fused=True),
        "Adam, foreach": of_torch(torch.optim.Adam, w, g, layout, 28, foreach=True),
        "SGD with momentum, fused": of_torch(torch.optim.SGD, w, g, layout, 20, momentum=0.9, fused=True),
        "SGD with momentum, foreach": of_torch(torch.optim.SGD, w, g, layout, 20, momentum=0.9, foreach=True),
        "a copy": Contestant(lambda: other.copy_(g), 12),
    }


def matrices(g: torch.Tensor, layout: Layout) -> dict[str, Contestant]:
    """Contestants on the matrices of a block."""
    p = layout.size
    w, row = torch.randn(p) * 0.02, torch.empty(2 * p + 1)
    found = {"Muon (bfloat16)": of_torch(torch.optim.Muon, w, g, layout)}
    for precision in ("bfloat16", "float32"):
        method = NSISA(sigma=20.0, rho=80.0, precision=precision)  # type: ignore[arg-type]
        found[f"NSISA ({precision})"] = of_library(method, w, g, row, layout, 0)
    for kind in (torch.float32, torch.bfloat16):
        found[f"the products alone, {str(kind)[6:]}"] = Contestant(newton_schulz_products(kind))
    found[ADAM] = of_torch(torch.optim.Adam, w, g, layout, fused=True)
    return found


def newton_schulz_products(kind: torch.dtype) -> Callable[[], None]:
    """The three products of each of five Newton-Schulz steps on the block's matrices, and nothing else."""
    wide = [torch.randn(min(shape), max(shape)).to(kind) / 100 for shape in BLOCK]

    def step() -> None:
        for x in wide:
            for _ in range(5):
                gram = x @ x.T
                gram @ gram
                gram @ x

    return step


def measured(contestants: dict[str, Contestant], g: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Nanoseconds per parameter in each turn, by contestant."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    steps = max(1, TURN // len(g))
    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for contestant in contestants.values():
        contestant.step()
    compiled.wait(3600)
    for k in range(rounds + 2):
        for name, contestant in contestants.items():
            g.normal_(std=0.01)
            start = now()
            for _ in range(steps):
                contestant.step()
            if k >= 2:
                found[name].append(1e9 * (now() - start) / steps / len(g))
    return found


def room_for(p: int) -> bool:
    """Whether there is memory for all contestants."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 * p * VECTORS < free


def cell(found: dict[str, list[float]], name: str) -> str:
    ratio = statistics.median(a / b for a, b in zip(found[name], found[ADAM], strict=True))
    return f"{statistics.median(found[name]):.2f} ({ratio:.2f})"


def table(names: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [names, ["---"] * len(names), *lines])


def on_vectors(sizes: list[int], threads: int, rounds: int) -> str:
    """Time the first table's part for a number of threads."""
    done: dict[int, dict[str, list[float]]] = {}
    for p in sizes:
        if not room_for(p):
            print(f"{p:.0e} entries are left out: they take {4e-9 * p * VECTORS:.0f} GB", flush=True)
            continue
        g = torch.empty(p)
        contestants = vectors(p, g)
        least = {name: contestant.least for name, contestant in contestants.items()}
        done[p] = measured(contestants, g, rounds if p < 5e7 else max(3, rounds // 3))
        del contestants, g
    byte = statistics.median(done[max(done)]["a copy"]) / least["a copy"]
    lines = []
    for name, bytes_ in least.items():
        above = statistics.median(done[max(done)][name]) / (byte * bytes_)
        lines.append([name, *(cell(found, name) for found in done.values()), str(bytes_), f"{above:.2f}"])
    heads = [f"{threads} thread{'s' if threads > 1 else ''}", *(f"{p:.0e}" for p in done)]
    return table([*heads, "bytes", "times a copy of them"], lines)


def on_matrices(threads: int, rounds: int) -> str:
    """Time the second table's part for a number of threads."""
    layout = Layout.of([(f"w{k}", shape, True) for k, shape in enumerate(BLOCK)])
    g = torch.empty(layout.size)
    found = measured(matrices(g, layout), g, rounds)
    muon = next(iter(found))
    lines = []
    for name, turns in found.items():
        ratio = statistics.median(a / b for a, b in zip(turns, found[muon], strict=True))
        lines.append([name, f"{statistics.median(turns) * layout.size / 1e6:.1f}", f"{ratio:.2f}"])
    return table([f"{threads} thread{'s' if threads > 1 else ''}", "ms a step", "times Muon"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=float, nargs="+", default=[1e5, 1e6, 1e7, 1e8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15, help="turns of each (a third at 1e8)")
    parser.add_argument("--eager", action="store_true", help="operation by operation, not compiled")
    parser.add_argument("--only", choices=["vectors", "matrices"])
    options = parser.parse_args()
    for threads in options.threads:
        set_numerics(threads)
        compiled.use(not options.eager)
        if options.only != "matrices":
            print(on_vectors([int(p) for p in options.entries], threads, options.rounds), "\n", flush=True)
        if options.only != "vectors":
            print(on_matrices(threads, options.rounds), "\n", flush=True)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
