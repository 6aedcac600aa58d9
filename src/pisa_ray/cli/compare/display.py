"""What a person sees of a comparison: a progress bar on a terminal, one line a cell elsewhere, nothing if unwanted."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

from tqdm import tqdm

from pisa_ray.trainer.terminal import LOST, escaped, is_watched, say


class Display:
    """Shows on standard error how many cells are done.

    Args:
        cells: All of them.
        done: Those that ended before (a resumed comparison).
        quiet: Show nothing.
    """

    def __init__(self, cells: int, done: int = 0, *, quiet: bool = False) -> None:
        self._quiet, self._cells, self._done = quiet, cells, done
        self._bar = tqdm(
            total=cells,
            initial=done,
            unit=" cells",
            disable=quiet or not is_watched(),
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{remaining} left, {rate_fmt}]{postfix}",
        )

    def ended(self, cell: str, how: str) -> None:
        """A cell ended."""
        self._done += 1
        with suppress(*LOST):  # a terminal may be gone
            self._bar.set_postfix_str(escaped(f"{cell}: {how}"), refresh=False)
            self._bar.update()
        if self._bar.disable:
            self.say(f"{self._done}/{self._cells}  {cell}: {how}")

    def say(self, text: str) -> None:
        """One line, above the bar where there is one."""
        if self._quiet:
            return
        if self._bar.disable:
            say(text)
        else:
            with suppress(*LOST):
                self._bar.write(escaped(text), file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(*LOST):
            self._bar.close()
