"""On a terminal a bar, elsewhere lines, and nothing if that is unwanted."""

from __future__ import annotations

import pytest

from pisa_ray.cli.compare.display import Display as Cells
from pisa_ray.trainer import display
from pisa_ray.trainer.display import Display

ROW = {"round": 2, "train_loss": 0.5, "sigma": 0.3, "test_accuracy": 0.75}


def show(quiet: bool = False) -> None:
    run = Display(2, quiet=quiet)
    run.round(0.3, 0.5)
    run.round(0.3, 0.25)
    run.row(ROW, 1.0)
    run.say("a worker\x1b[2J joined")
    run.close()
    cells = Cells(2, 1, quiet=quiet)
    cells.ended("SISA, \x1b[2Jseed 0", "finished")
    cells.close()


def test_a_terminal_shows_bars_with_lines_above_them(monkeypatch, capsys):
    monkeypatch.setattr(display, "is_watched", lambda: True)
    show()
    said = capsys.readouterr().err
    for text in ("2/2 [", "loss 0.250 sigma 0.3", r"a worker\x1b[2J joined" + "\n", r"SISA, \x1b[2Jseed 0: finished"):
        assert text in said
    assert "round 2/2" not in said


def test_elsewhere_there_are_lines(capsys):
    show()
    assert capsys.readouterr().err.splitlines() == [
        "round 2/2  loss 0.500  sigma 0.3  acc 0.75  1.0 rounds/s  0 s left",
        r"a worker\x1b[2J joined",
        r"2/2  SISA, \x1b[2Jseed 0: finished",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_shown_if_it_is_unwanted(monkeypatch, capsys, terminal):
    monkeypatch.setattr(display, "is_watched", lambda: terminal)
    show(quiet=True)
    assert capsys.readouterr().err == ""
