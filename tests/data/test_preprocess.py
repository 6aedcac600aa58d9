import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from pisa_ray.data import Preprocess, default_preprocess, open_source
from pisa_ray.errors import ConfigError


def images(channels: int, dtype=torch.uint8):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2345, channels, 3, 2), np.uint8)).to(dtype)
    return pixels, open_source(TensorDataset(pixels, torch.zeros(2345)))


def test_colour_images_are_normalised_by_their_own_statistics():
    pixels, source = images(3)
    preprocess = default_preprocess(source)
    reference = pixels.double() / 255
    assert preprocess.scale == 1 / 255
    assert preprocess.mean == pytest.approx(reference.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert preprocess.std == pytest.approx(reference.std((0, 2, 3), correction=0).tolist(), rel=1e-12)
    x = preprocess(pixels, training=True)
    assert x.dtype == torch.float32
    assert x.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(preprocess(pixels[:7], training=False), x[:7], rtol=0, atol=0)


def test_grey_images_are_scaled_only_and_other_numbers_are_left_alone():
    _, source = images(1)
    assert default_preprocess(source) == Preprocess(scale=1 / 255)
    numbers, other = images(3, torch.float64)
    assert default_preprocess(other) == Preprocess()
    x = default_preprocess(other)(numbers, training=True)
    assert x.dtype == torch.float32
    assert x.tolist() == numbers.tolist()
    assert default_preprocess(open_source("digits")) == Preprocess()


def test_the_users_numbers_win():
    pixels, source = images(3)
    given = default_preprocess(source, scale=0.5, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
    expected = (pixels * 0.5 - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor([1.0, 2, 4]).view(3, 1, 1)
    torch.testing.assert_close(given(pixels, training=False), expected)
    features = Preprocess(mean=(1.0,), std=(2.0,))
    assert features(torch.tensor([[3, 5]]), training=True).tolist() == [[1.0, 2.0]]


def test_a_constant_channel_is_not_divided_by_zero():
    pixels = torch.full((4, 3, 2, 2), 255, dtype=torch.uint8)
    preprocess = default_preprocess(open_source(TensorDataset(pixels, torch.zeros(4))))
    assert preprocess.std == (1.0, 1.0, 1.0)
    assert preprocess(pixels, training=True).abs().max() == 0


def test_inputs_are_not_changed():
    x = torch.ones(2, 3)
    Preprocess(scale=2.0, mean=(1.0,), std=(2.0,))(x, training=True)
    assert x.tolist() == torch.ones(2, 3).tolist()


def test_a_transform_replaces_everything():
    pixels, source = images(3)
    preprocess = default_preprocess(source, transform=lambda x, training: x.float() + training)
    assert torch.equal(preprocess(pixels, training=True), pixels.float() + 1)
    assert torch.equal(preprocess(pixels, training=False), pixels.float())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"transform": abs, "scale": 1.0}, "data.transform replaces data.scale, data.mean and data.std, but"),
        ({"mean": (0.5,)}, "data.mean and data.std belong together, but only one is given"),
        ({"mean": (0.5, 1.0, 1.0), "std": (1.0,)}, "data.mean has 3 numbers and data.std 1, but"),
        ({"mean": (0.5, 1.0), "std": (1.0, 1.0)}, "data.mean has 2 numbers, but the inputs have 3 channels"),
    ],
)
def test_error_sentences(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        default_preprocess(images(3)[1], **settings)
