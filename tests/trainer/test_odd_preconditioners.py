"""What a preconditioner of one's own gives is looked at before a run begins."""

import pytest
import torch
from torch import nn

from pisa_ray import IID, PISA, ConfigError, Data
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


@pytest.mark.parametrize("gives", [None, "q", torch.ones(3), torch.ones(2, 2)], ids=repr)
def test_what_is_no_matrix_is_refused(gives):
    with pytest.raises(ConfigError, match=r"preconditioner gives .*, but it must give a number, a vector of"):
        prepare(
            Config(
                model=lambda: nn.Linear(64, 10),
                data=Data(train="digits"),
                partition=IID(2),
                algorithm=PISA(sigma=1.0, rho=1.0, preconditioner=lambda curvature: gives),
            )
        )


@pytest.mark.parametrize(
    "gives",
    [2, 0.5, torch.tensor(0.5), torch.ones(650), lambda v: 2 * v],
    ids=["2", "0.5", "number", "vector", "product"],
)
def test_numbers_vectors_and_products_are_taken(gives):
    algorithm = PISA(sigma=1.0, rho=1.0, preconditioner=lambda curvature: gives)
    prepare(Config(model=lambda: nn.Linear(64, 10), data=Data(train="digits"), partition=IID(2), algorithm=algorithm))
