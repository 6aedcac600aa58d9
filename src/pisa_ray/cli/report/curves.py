"""Draws the curves of all runs, with a caption that describes healthy ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pisa_ray.cli.report.figures import Line, draw_curves, thin
from pisa_ray.cli.report.markup import Figure, line_key
from pisa_ray.cli.report.run import RecordedRun
from pisa_ray.cli.report.text import count

LEGEND_RUNS = 5  # with more runs, only the first table has their names


@dataclass(frozen=True)
class _Chart:
    """A figure of some metrics by key and name, whose caption describes a healthy one."""

    title: str
    series: tuple[tuple[str, str], ...]
    caption: str
    log_beyond: float = 2.0
    percent: bool = False
    expected: bool = True  # whether the page names it if it is missing


_CHARTS = (
    _Chart(
        "Accuracy",
        (("test_accuracy", "test"), ("validation_accuracy", "validation")),
        "Healthy: rises, then levels off. A saw-tooth means that sigma is too small.",
        log_beyond=math.inf,
        percent=True,
    ),
    _Chart(
        "Loss",
        (("train_loss", "train"), ("test_loss", "test"), ("validation_loss", "validation")),
        "Healthy: all fall. Test rising while train falls is overfitting; an explosion asks for a larger sigma or rho.",
        log_beyond=20.0,
    ),
    _Chart(
        "Penalty sigma",
        (("sigma", "sigma"),),
        "Healthy: constant, or growing slowly. Growing too fast freezes the weights before they arrive.",
    ),
    _Chart(
        "Period k0",
        (("k0", "k0"),),
        "Rounds between two growths of sigma, chosen by trials. Healthy: long at first, shorter towards the end.",
        expected=False,
    ),
    _Chart(
        "Primal residual",
        (("primal_residual", "primal residual"),),
        "How far the shards' copies are from the consensus. Healthy: falls. Flat while the loss stalls: "
        "sigma is too small for the noise.",
    ),
    _Chart(
        "Dual residual",
        (("dual_residual", "dual residual"),),
        "How far the duals are from the negative gradients. Healthy: falls to the noise of the mini-batches. "
        "Growing: duals are lost or scaled.",
    ),
    _Chart(
        "Consensus residual",
        (("consensus_residual", "consensus residual"),),
        "The stationarity error, up to noise. Healthy: falls. High while the weights no longer move: "
        "frozen, so grow sigma less often (k0) or less (gamma).",
    ),
    _Chart(
        "Consensus move",
        (("consensus_move", "consensus move"), ("sigma_primal", "sigma * primal residual")),
        "Healthy: falls, and stays within a factor of ten of sigma * primal residual. "
        "That one ten times larger: grow sigma; ten times smaller: stop growing.",
    ),
    _Chart(
        "Augmented Lagrangian",
        (("augmented_lagrangian", "augmented Lagrangian"),),
        "Healthy: falls between growths of sigma. Repeated rises with full gradients: sigma and rho are too small.",
        log_beyond=20.0,
        expected=False,
    ),
    _Chart(
        "Momentum",
        (("momentum", "momentum"),),
        "Healthy: about 0.5 to 0.99. Near 0: plain gradient steps of 1/sigma. Near 1: very slow duals.",
        log_beyond=math.inf,
        expected=False,
    ),
    _Chart(
        "Workers",
        (("workers", "workers"),),
        "Workers may join, leave or die; the result does not depend on them.",
        log_beyond=math.inf,
        expected=False,
    ),
)


def curves(runs: Sequence[RecordedRun]) -> tuple[list[Figure], list[str]]:
    """Draw a figure for every metric that some run has, and return the names of those that are missing."""
    figures, missing = [], []
    for number, chart in enumerate(_CHARTS):
        series = [(key, name) for key, name in chart.series if any(run.points(key) for run in runs)]
        if not series:
            missing += [chart.title[0].lower() + chart.title[1:]] if chart.expected else []
        elif chart.title != "Workers" or any(len({y for _, y in run.points("workers")}) > 1 for run in runs):
            figures.append(_figure(runs, chart, series, salt=f"chart{number}"))
    return figures, missing


def _figure(runs: Sequence[RecordedRun], chart: _Chart, series: Sequence[tuple[str, str]], salt: str) -> Figure:
    """Draw a figure: metrics of one run differ in colour and dash, runs in colour and their metrics in dash."""
    one = len(runs) == 1
    lines, gaps = [], 0
    for i, run in enumerate(runs):
        found = [run.points(key) for key, _ in series]
        gaps += max((len(run.rows) - len(points) for points in found if points), default=0)
        lines += [Line(thin(points), j if one else i, j) for j, points in enumerate(found) if points]
    keys = [] if one or len(runs) > LEGEND_RUNS else [line_key(i) + run.name for i, run in enumerate(runs)]
    if len(series) > 1:
        keys += [line_key(j if one else None, j) + name for j, (_, name) in enumerate(series)]
    names = ", ".join(name for _, name in series)
    who = "" if one else " of " + ", ".join(run.name for run in runs)
    svg = draw_curves(
        lines,
        salt=salt,
        description=f"{chart.title} over rounds ({names}){who}",
        log_beyond=chart.log_beyond,
        percent=chart.percent,
    )
    said = f" No finite value in {count(gaps, 'evaluated round')}: not drawn." if gaps else ""
    return Figure(chart.title, keys, svg, chart.caption + said)
