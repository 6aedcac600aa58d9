"""A resume with groups that have other parameters is refused, however the groups are named."""

import pytest
from torch import nn

from pisa_ray import IID, PISA, SISAD, ConfigError, Data, Groups, PisaTrainer

A, B = SISAD(sigma=3, rho=57), SISAD(sigma=30, rho=570)


def beginning(name):
    return lambda slot: slot.name.startswith(name)


def trainer(path, algorithm, **changes):
    return PisaTrainer(
        model=lambda: nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10)),
        data=Data(train="digits"),
        partition=IID(2),
        algorithm=algorithm,
        scaling_config=0,
        run_config=path,
        progress=False,
        **{"rounds": 1, **changes},
    )


def test_another_function_of_that_name_is_refused(tmp_path):
    trainer(tmp_path / "run", Groups(groups={"x": (beginning("0"), A), "rest": B})).fit()
    again = {"resume": True, "rounds": 2}
    other = Groups(groups={"x": (beginning("2"), A), "rest": B})
    with pytest.raises(
        ConfigError, match=r"a group x of the parameters 0\.weight, 0\.bias, not 2\.weight, 2\.bias: resume"
    ):
        trainer(tmp_path / "run", other, **again).fit()
    same = Groups(groups={"x": (beginning("0"), A), "rest": B})
    assert trainer(tmp_path / "run", same, **again).fit().metrics["rounds"] == 2


def test_another_kind_is_said_before_its_numbers(tmp_path):
    trainer(tmp_path / "run", Groups(groups={"vectors": A, "rest": B})).fit()
    other = Groups(groups={"vectors": PISA(sigma=3, rho=57), "rest": B})
    with pytest.raises(ConfigError, match=r"started with algorithm\.groups\.vectors\.kind = 'sisa_d', not 'pisa'"):
        trainer(tmp_path / "run", other, resume=True, rounds=2).fit()
