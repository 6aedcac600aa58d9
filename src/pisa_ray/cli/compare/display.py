"""Shows the progress of a comparison: a bar on a terminal, one line per cell elsewhere, nothing if unwanted."""

from __future__ import annotations

from pisa_ray.trainer.display import Bar


class Display(Bar):
    """Shows how many cells are done.

    Args:
        cells: The number of all cells.
        done: The number of cells that ended before, if the comparison is resumed.
        quiet: Whether to show nothing.
    """

    def __init__(self, cells: int, done: int = 0, *, quiet: bool = False) -> None:
        super().__init__(cells, done, "cells", quiet=quiet)
        self._cells, self._done = cells, done

    def ended(self, cell: str, how: str) -> None:
        """Show that a cell has ended."""
        self._done += 1
        self._advance(f"{cell}: {how}")
        if self._bar.disable:
            self.say(f"{self._done}/{self._cells}  {cell}: {how}")
