"""A worker is killed in the middle of a run and another takes its place: the picture in README.

    python benchmarks/kill_and_join.py CONFIG.yaml [--picture docs/kill-and-join.png]

Runs the configuration twice by the command line: undisturbed in one process, and with two Ray workers of which one is
killed (SIGKILL) at a third of the rounds; `pisa-ray resize` lets one go at two thirds. Draws the test accuracy of both
and the workers there were, and prints both hashes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import yaml

PISA_RAY = [sys.executable, "-m", "pisa_ray"]


def lines(path: Path) -> list[dict[str, Any]]:
    whole = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in whole]


def wait_for_round(run: Path, round_: int, process: subprocess.Popen[bytes]) -> None:
    while not any(row["round"] >= round_ for row in lines(run / "metrics.jsonl")):
        if process.poll() is not None:
            raise SystemExit("the run ended too early")
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--picture", type=Path, default=Path("docs/kill-and-join.png"))
    options = parser.parse_args()
    rounds = yaml.safe_load(options.config.read_text()).get("rounds", 200)
    folder = Path(tempfile.mkdtemp())
    train = [*PISA_RAY, "train", str(options.config), "--quiet", "--set", "evaluate_every=4"]
    subprocess.run([*train, "--set", "workers=0", "--out", str(folder / "alone")], check=True)

    run = folder / "killed"
    process = subprocess.Popen([*train, "--set", "workers={min: 1, max: 2}", "--out", str(run)])
    wait_for_round(run, rounds // 3, process)
    victim = lines(run / "events.jsonl")[0]
    os.kill(victim["pid"], signal.SIGKILL)
    wait_for_round(run, rounds * 2 // 3, process)
    subprocess.run([*PISA_RAY, "resize", str(run), "1"], check=True)
    if process.wait():
        raise SystemExit("the run failed")

    results = {name: json.loads((folder / name / "result.json").read_text()) for name in ("alone", "killed")}
    for name, result in results.items():
        print(f"{name:7} {result['weights_sha256']}  test accuracy {result['test_accuracy']:.4f}")
    draw(folder, options.picture, results["alone"]["weights_sha256"] == results["killed"]["weights_sha256"])
    print(options.picture)


def draw(folder: Path, picture: Path, same: bool) -> None:
    figure, (above, below) = plt.subplots(2, sharex=True, figsize=(7.5, 4.2), height_ratios=[3, 1.2])
    for name, style, label in (
        ("alone", {"color": "0.75", "linewidth": 5}, "undisturbed, one process"),
        ("killed", {"color": "tab:blue"}, "two workers, one killed"),
    ):
        rows = lines(folder / name / "metrics.jsonl")
        above.plot([r["round"] for r in rows], [r["test_accuracy"] for r in rows], label=label, **style)
    above.set_ylabel("test accuracy")
    above.legend(loc="lower right", frameon=False)
    above.set_title("same weights_sha256 at the end" if same else "DIFFERENT weights at the end", fontsize=10)
    sizes, alive = [(0, 0)], 0
    for event in lines(folder / "killed" / "events.jsonl"):
        step = {"worker_started": 1, "worker_died": -1, "worker_left": -1}.get(event["kind"], 0)
        if step:
            alive += step
            sizes.append((event["round"], alive))
            if event["round"]:
                text = {"worker_started": "joins", "worker_died": "killed", "worker_left": "let go"}[event["kind"]]
                below.annotate(
                    f"{text}\nround {event['round']}",
                    (event["round"], alive),
                    (4, 6 if step > 0 else -24),
                    textcoords="offset points",
                    fontsize=8,
                )
                above.axvline(event["round"], color="tab:red" if step < 0 else "tab:green", linewidth=0.8)
    last = lines(folder / "killed" / "metrics.jsonl")[-1]["round"]
    below.step([r for r, _ in sizes] + [last], [n for _, n in sizes] + [alive], where="post", color="tab:blue")
    below.set(ylabel="workers", xlabel="round", ylim=(-0.6, 3.2), yticks=[0, 1, 2])
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=150)


if __name__ == "__main__":
    main()
