"""Shows the progress of a run: a bar on a terminal, one line per evaluation elsewhere, nothing if unwanted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from pisa_ray.trainer.terminal import LOST, escaped, is_watched, say


class Bar:
    """A progress bar on standard error, if that is a terminal.

    Args:
        total: The number of units at the end.
        done: The number that was done before.
        unit: The name of the unit.
        quiet: Whether to show nothing.
    """

    def __init__(self, total: int, done: int, unit: str, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=f" {unit}",
            disable=quiet or not is_watched(),
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{remaining} left, {rate_fmt}]{postfix}",
        )

    def say(self, text: str) -> None:
        """Write a line, above the bar if there is one."""
        if self._quiet:
            return
        if self._bar.disable:
            say(text)
        else:
            with suppress(*LOST):
                self._bar.write(escaped(text), file=sys.stderr)

    def close(self) -> None:
        """Leave the terminal as it was."""
        with suppress(*LOST):
            self._bar.close()

    def _advance(self, text: str) -> None:
        """Count one more unit, and show a text behind the bar."""
        with suppress(*LOST):  # the terminal may be gone
            self._bar.set_postfix_str(escaped(text), refresh=False)
            self._bar.update()


class Display(Bar):
    """Shows the progress of a run.

    Args:
        rounds: The length of the run.
        start: The rounds that were done before, if the run is resumed.
        quiet: Whether to show nothing.
        penalty: Whether the method has a penalty sigma; if not, 1/sigma is its learning rate and is shown.
    """

    def __init__(self, rounds: int, start: int = 0, *, quiet: bool = False, penalty: bool = True) -> None:
        super().__init__(rounds, start, "rounds", quiet=quiet)
        self._rounds, self._penalty = rounds, penalty
        self._last: dict[str, str] = {}

    def round(self, sigma: float, loss: float) -> None:
        """Show that a round is done."""
        name, _, value = self._strength(sigma).partition(" ")
        self._last |= {"loss": f"{loss:.3f}", name: value}
        self._advance(" ".join(f"{name} {value}" for name, value in self._last.items()))

    def row(self, row: Mapping[str, Any], rate: float) -> None:
        """Show the row of an evaluated round; `rate` is in rounds per second."""
        names = {"test_accuracy": "acc", "test_loss": "test", "primal_residual": "prim", "consensus_residual": "cons"}
        self._last |= {short: f"{row[name]:.3g}" for name, short in names.items() if row.get(name) is not None}
        if not self._quiet and self._bar.disable:
            left = (self._rounds - row["round"]) / rate if rate else 0.0
            self.say(
                f"round {row['round']}/{self._rounds}  loss {row['train_loss']:.3f}  {self._strength(row['sigma'])}  "
                + "  ".join(f"{short} {self._last[short]}" for short in names.values() if short in self._last)
                + f"  {rate:.1f} rounds/s  {left:.0f} s left"
            )

    def _strength(self, sigma: float) -> str:
        return f"sigma {sigma:.3g}" if self._penalty else f"lr {1 / sigma:.3g}"
