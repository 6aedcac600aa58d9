"""Searches and final runs, each a `pisa-ray compare` in a folder of its own; what has ended is not run again."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ray

from pisa_ray.cli.compare import Comparison, compare
from studies.rows import Row

HELD_OUT = 0.1


class Study:
    """Comparisons under one folder, and the settings that were found.

    Args:
        out: The folder.
        data: Where the data sets' folders are.
        seeds: Of the final runs.
        search_seeds: Of the searches.
    """

    def __init__(self, out: Path, data: Path, seeds: tuple[int, ...], search_seeds: tuple[int, ...]) -> None:
        self.out, self.data, self.seeds, self.search_seeds = out, data, seeds, search_seeds
        kept = out / "settings.json"
        self.chosen: dict[str, dict[str, dict[str, Any]]] = json.loads(kept.read_text()) if kept.exists() else {}

    def search(
        self,
        place: tuple[str, str],
        base: Row,
        partitions: dict[str, Row],
        candidates: dict[str, list[Row]],
        score: str = "validation_accuracy",
        **more: Any,
    ) -> dict[str, Row]:
        """Find the best settings of each algorithm by the mean of a score, and keep them in settings.json.

        Args:
            place: Data set and cell, where the runs go and what is found.
            base: Keys of a training file.
            partitions: One.
            candidates: Settings to choose from, by algorithm.
            score: An accuracy or a loss of held-out rows.
            more: Other keys of a training file.

        Returns:
            The settings by algorithm.
        """
        rows = {f"{a} {k + 1}": row for a, tried in candidates.items() for k, row in enumerate(tried)}
        done = self.compare(
            "/".join(("search", *place)),
            base,
            partitions,
            rows,
            seeds=self.search_seeds,
            score=score,
            evaluations=1,
            **more,
        )
        reached = {r["algorithm"]: None if r["diverged"] else r[f"last_{score}"]["mean"] for r in done.rows}
        sign, chosen = -1 if score.endswith("loss") else 1, {}
        for a, tried in candidates.items():
            scores = [reached[f"{a} {k + 1}"] for k in range(len(tried))]
            worth = [-math.inf if value is None else sign * value for value in scores]  # None: diverged
            best = worth.index(max(worth))
            everything = [{"settings": s, score: v} for s, v in zip(tried, scores, strict=True)]
            chosen[a] = {"settings": tried[best], "tried": everything}
        self.chosen.setdefault(place[0], {})[place[1]] = chosen
        part = self.out / "settings.json.part"
        part.write_text(json.dumps(self.chosen, indent=1))
        part.replace(self.out / "settings.json")
        return {a: found["settings"] for a, found in chosen.items()}

    def compare(
        self,
        place: str,
        base: Row,
        partitions: dict[str, Row],
        rows: dict[str, Row],
        *,
        seeds: tuple[int, ...] | None = None,
        score: str = "test_accuracy",
        evaluations: int = 5,
        equal: str = "gradients",
        **more: Any,
    ) -> Comparison:
        """Run a comparison, or what is left of it.

        Args:
            place: Its folder under `out`.
            base: Keys of a training file; data paths are relative to `data`.
            partitions: As in a comparison file.
            rows: Its algorithms.
            seeds: None: those of the final runs.
            score: As there.
            evaluations: About how many a run has.
            equal: As there.
            more: Other keys of a training file.
        """
        values = {**base, "checkpoint": {"every": None}, **more}
        where = {"validation": HELD_OUT} | {
            k: str(self.data / v) if k in ("train", "test") else v for k, v in values["data"].items()
        }
        values |= {"data": where, "evaluate_every": max(1, values["rounds"] // evaluations)}
        spec = {
            "name": place,
            "base": values,
            "algorithms": rows,
            "partitions": partitions,
            "seeds": list(self.seeds if seeds is None else seeds),
            "equal": equal,
            "score": score,
        }
        start = time.perf_counter()
        done = compare(spec, self.out / place, resume=True)
        print(f"{place}: {done.status}, {time.perf_counter() - start:.0f} s", flush=True)
        if done.status == "interrupted":
            raise SystemExit(130)
        if done.failures:
            raise SystemExit("\n".join(done.failures))
        return done


def command_line(name: str, presets: Iterable[str], studies: Sequence[str] = ()) -> argparse.Namespace:
    """What the user wants: preset, out, data, address and, where there are studies, only; makes the output folder."""
    parser = argparse.ArgumentParser(prog=name, description=f"The {name} study; run again to go on.")
    parser.add_argument("--preset", choices=presets, default="ninety", help="how much (default: %(default)s minutes)")
    if studies:
        parser.add_argument("--only", choices=studies, metavar="STUDY", help=f"one study alone: {', '.join(studies)}")
    parser.add_argument("--out", type=Path, help=f"default: runs/{name}-PRESET")
    default = Path(__file__).resolve().parents[2] / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PISA_RAY_DATA", default)))
    parser.add_argument("--address", help="of a Ray cluster; default: one here")
    options = parser.parse_args()
    options.out = (options.out or Path("runs") / f"{name}-{options.preset}").resolve()
    options.data = options.data.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def start_ray(options: argparse.Namespace) -> None:
    ray.init(address=options.address or "local", log_to_driver=False, include_dashboard=False)
