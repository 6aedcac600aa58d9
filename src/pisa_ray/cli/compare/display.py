"""What a person sees of a comparison: a progress bar on a terminal, one line a cell elsewhere, nothing if unwanted."""

from __future__ import annotations

from pisa_ray.trainer.display import Bar


class Display(Bar):
    """Shows how many cells are done.

    Args:
        cells: All of them.
        done: Those that ended before (a resumed comparison).
        quiet: Show nothing.
    """

    def __init__(self, cells: int, done: int = 0, *, quiet: bool = False) -> None:
        super().__init__(cells, done, "cells", quiet=quiet)
        self._cells, self._done = cells, done

    def ended(self, cell: str, how: str) -> None:
        """A cell ended."""
        self._done += 1
        self._advance(f"{cell}: {how}")
        if self._bar.disable:
            self.say(f"{self._done}/{self._cells}  {cell}: {how}")
