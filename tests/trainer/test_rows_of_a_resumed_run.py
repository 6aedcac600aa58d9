"""After a resume there is one row a round, as if the run had never ended."""

from __future__ import annotations

import json

import pytest

from pisa_ray.trainer.records import Records


def row(number, *, interrupted=False):
    return {"round": number, "train_loss": 1.0 / number, "consensus_move": None if interrupted else 0.5}


@pytest.mark.parametrize("saved", [1, 3, 4])
def test_what_will_be_done_again_is_dropped(tmp_path, saved):
    records = Records(tmp_path)
    for number in range(1, 5):
        records.add_row(row(number))
        records.add_arrivals(number, [(0, number), (1, number)])
    assert records.cut_back(saved, row(saved), []) == []
    assert [line["round"] for line in records.rows()] == list(range(1, saved + 1))
    steps = (tmp_path / "arrivals.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in steps] == list(range(1, saved + 1))


def test_the_row_of_an_interruption_is_dropped(tmp_path):
    records = Records(tmp_path)
    for number in (2, 4):
        records.add_row(row(number))
    records.add_row(row(5, interrupted=True))
    records.cut_back(5, row(5, interrupted=True), [])
    assert list(records.rows()) == [row(2), row(4)]
