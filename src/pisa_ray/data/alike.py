"""A check that two sources can be used by one model."""

from pisa_ray.data.base import Source
from pisa_ray.data.preprocess import input_kind
from pisa_ray.errors import ConfigError


def check_alike(train: Source, other: Source, name: str) -> None:
    """Refuse data whose rows are not of the same kind as the training data's.

    Args:
        train: The training data.
        other: Test data, validation data, or data that join the training data.
        name: What to call the other data in error messages.

    Raises:
        ConfigError: If inputs or targets differ in shape or kind.
    """
    for what, here, there in (
        ("inputs of shape", other.input_shape, train.input_shape),
        ("inputs that are", input_kind(other), input_kind(train)),
        ("labels of type", other.target_dtype, train.target_dtype),
        ("labels of shape", other.target_shape, train.target_shape),
    ):
        if here != there:
            theirs, ours = (str(value).removeprefix("torch.") for value in (here, there))
            raise ConfigError(f"{name} has {what} {theirs}, but data.train has {ours}: use data of the same kind.")
