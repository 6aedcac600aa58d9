import json

import numpy as np
import pytest

from pisa_ray.data import distribution_table, label_distribution


def test_counts():
    labels = np.array([10, 2, 2, 10, 2])
    distribution = label_distribution([np.array([0, 1, 2]), np.array([3])], labels)
    assert distribution == {"shards": [{"rows": 3, "labels": {"2": 2, "10": 1}}, {"rows": 1, "labels": {"10": 1}}]}
    assert json.loads(json.dumps(distribution)) == distribution


@pytest.mark.parametrize("labels", [None, np.array([0.5, 1.5])])
def test_real_and_unknown_labels_are_not_counted(labels):
    distribution = label_distribution([np.array([0, 1])], labels)
    assert distribution == {"shards": [{"rows": 2}]}
    assert distribution_table(distribution).splitlines()[2] == "|     0 |    2 |"


def test_table():
    labels = np.array([10, 2, 2, 10, 2])
    table = distribution_table(label_distribution([np.array([0, 1, 2]), np.array([3])], labels))
    assert table.splitlines() == [
        "| shard | rows |  2 | 10 |",
        "| ----: | ---: | -: | -: |",
        "|     0 |    3 |  2 |  1 |",
        "|     1 |    1 |  0 |  1 |",
        "|   all |    4 |  2 |  2 |",
    ]


def test_table_of_much_stays_readable():
    shards = list(np.arange(20_000).reshape(1000, 20))
    table = distribution_table(label_distribution(shards, np.arange(20_000) % 40))
    lines = table.splitlines()
    assert len(lines) < 50
    assert max(map(len, lines)) < 80
    assert lines[2].endswith(" 20 |       0 (1), 1 (1), 2 (1) |")
    assert "999" in lines[-2]
    assert "20000" in lines[-1]
