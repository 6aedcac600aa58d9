"""What is done to a shard's rows: the right thing, to the right rows, as a function of (seed, shard, row or report)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from every import every
from hypothesis import given, settings
from hypothesis import strategies as st

from pisa_ray.data import (
    IID,
    Distorted,
    Distortion,
    FeatureNoise,
    Indices,
    Noise,
    Origin,
    Recolour,
    Rotate,
    ShiftLabels,
    open_source,
)
from pisa_ray.data.keys import generator, uniform
from pisa_ray.errors import ConfigError

ALL = [*every(Distortion, shift_labels=ShiftLabels(0.5, shards=None, classes=10)).values()]


def batch(rows: int = 8, channels: int = 3, height: int = 6, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(rows + channels)
    x = torch.from_numpy(random.random((rows, channels, height, width), dtype=np.float32))
    return x, torch.from_numpy(random.integers(0, 10, rows))


def origin(shard: int = 1, rows: int = 8, batch: int | None = 0, seed: int = 3, shards: int = 4) -> Origin:
    return Origin(seed, shard, shards, np.arange(rows), batch)


def digits_of(labels: list[int] | np.ndarray):
    return open_source(pa.table({"x": np.zeros(len(labels)), "y": labels}), input="x", label="y")


# All of them


@pytest.mark.parametrize("distortion", ALL, ids=lambda d: d.kind)
def test_the_same_batch_is_distorted_alike_everywhere_and_not_written_to(distortion):
    x, y = batch()
    x_before, y_before = x.clone(), y.clone()
    once, again = distortion(x, y, origin()), distortion(x, y, origin())
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)
    assert [a.shape for a in once] == [x.shape, y.shape]
    assert [a.dtype for a in once] == [x.dtype, y.dtype]
    assert not (torch.equal(once[0], x) and torch.equal(once[1], y))


@pytest.mark.parametrize("distortion", ALL, ids=lambda d: d.kind)
def test_shards_that_are_not_named_are_left_alone(distortion):
    x, y = batch()
    only = dataclasses.replace(distortion, shards=(0, 2))
    assert all(a is b for a, b in zip(only(x, y, origin(1)), (x, y), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(only(x, y, origin(2)), distortion(x, y, origin(2)), strict=True))


@settings(deadline=None)
@given(positions=st.permutations(range(8)), distortion=st.sampled_from(ALL[1:]))
def test_what_happens_to_a_row_does_not_depend_on_its_neighbours(positions, distortion):
    x, y = batch()
    together = distortion(x, y, origin(batch=None))
    some = positions[:3]
    alone = distortion(x[some], y[some], dataclasses.replace(origin(), rows=np.array(some), batch=5))
    assert torch.equal(alone[0], together[0][some])
    assert torch.equal(alone[1], together[1][some])


def test_a_wrapped_partition_cuts_as_before_and_adds_its_distortion():
    wrapped = Distorted(FeatureNoise(4, 0.5), Rotate(90))
    source = digits_of(np.arange(20) % 3)
    for rows, same in zip(wrapped.split(source, 1), IID(4).split(source, 1), strict=True):
        np.testing.assert_array_equal(rows, same)
    assert wrapped.distortions == (Noise(0.5), Rotate(90))
    assert IID(3).distortions == Indices(((0,),)).distortions == ()


# Noise


def test_noise_rises_from_shard_to_shard_and_is_redrawn_for_every_report():
    x, y = torch.zeros(1000, 3), torch.zeros(1000)
    levels = [Noise(0.6)(x, y, origin(i, 1000))[0].std().item() for i in range(4)]
    assert levels == pytest.approx((0, 0.2, 0.4, 0.6), rel=0.05)
    first, second = (Noise(0.6)(x, y, origin(3, 1000, report))[0] for report in (0, 1))
    assert not torch.equal(first, second)
    assert Noise(0.6)(x, y, origin(3, 1000, None))[0] is x  # an evaluation
    assert Noise(0.6)(x, y, origin(0, 1000, shards=1))[0] is x


def test_noise_has_the_bits_of_the_named_stream():
    x, y = batch()
    noise = generator(3, "feature_noise", 1, 7).standard_normal(x.shape, dtype=np.float32)
    assert torch.equal(Noise(0.6)(x, y, origin(batch=7))[0], x + torch.from_numpy(noise) * (0.6 * 1 / 3))


# Labels


@settings(deadline=None)
@given(
    classes=st.integers(2, 20),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**64),
    shard=st.integers(0, 3),
    drawn=st.data(),
)
def test_labels_are_shifted_in_the_named_shards_by_one_for_the_share_asked(classes, share, seed, shard, drawn):
    named = drawn.draw(st.none() | st.sets(st.integers(0, 3)).map(tuple))
    n = 2000
    y = torch.from_numpy(np.random.default_rng(classes).integers(0, classes, n))
    labels = np.append(y.numpy(), classes - 1)
    shift = ShiftLabels(share, shards=named).fit(digits_of(labels), 4)
    x = torch.zeros(n, 2)
    same, new = shift(x, y, Origin(seed, shard, 4, np.arange(n) * 7, 0))
    assert same is x
    changed = new != y
    assert torch.equal(new[changed], (y[changed] + 1) % classes)
    if named is not None and shard not in named:
        assert not changed.any()
    else:
        deviation = (share * (1 - share) / n) ** 0.5
        assert abs(changed.double().mean().item() - share) <= 6 * deviation + 1e-9


@given(classes=st.integers(1, 9))
def test_all_labels_of_the_first_shard_are_permuted_by_default(classes):
    y = torch.arange(classes)
    shift = ShiftLabels().fit(digits_of(np.arange(classes)), 2)
    _, new = shift(torch.zeros(classes, 1), y, origin(0, classes))
    assert new.tolist() == [*range(1, classes), 0]
    assert shift(torch.zeros(classes, 1), y, origin(1, classes))[1] is y


def test_row_numbers_are_uniform_and_named():
    rows = np.arange(100_000)
    numbers = uniform(rows, 1, "a", 2)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.histogram(numbers, 20, (0, 1))[0] == pytest.approx(5000, rel=0.06)
    assert np.corrcoef(numbers[1:], numbers[:-1])[0, 1] == pytest.approx(0, abs=0.02)
    for other in (uniform(rows, 2, "a", 2), uniform(rows, 1, "b", 2), uniform(rows, 1, "a", 3)):
        assert np.corrcoef(numbers, other)[0, 1] == pytest.approx(0, abs=0.02)
    np.testing.assert_array_equal(uniform(rows[::-7], 1, "a", 2), numbers[::-7])
    # The same bits on every machine, once and for all.
    assert uniform(np.array([0, 1, 10**12]), 0, "shift_labels", 0).tolist() == [
        0.35752933212832927,
        0.3362152172984395,
        0.5672023275677642,
    ]


# Images


@pytest.mark.parametrize("step", [0, 360, -720])
def test_a_whole_turn_is_none(step):
    x, y = batch()
    assert Rotate(step)(x, y, origin(3))[0] is x
    assert Rotate(120)(x, y, origin(3))[0] is x


@settings(deadline=None)
@given(quarters=st.integers(-5, 5), channels=st.integers(1, 4), side=st.integers(1, 9), shard=st.integers(1, 3))
def test_quarter_turns_are_those_of_torch(quarters, channels, side, shard):
    x, y = batch(2, channels, side, side)
    turned, targets = Rotate(90 * quarters)(x, y, origin(shard))
    assert targets is y
    torch.testing.assert_close(turned, torch.rot90(x, quarters * shard, (2, 3)), atol=1e-5, rtol=0)


def test_oblong_images_keep_their_proportions():
    x = torch.zeros(1, 1, 9, 5)
    x[0, 0, 2:7, 2] = 1  # an upright line of 5 pixels in the middle
    lying = torch.zeros(1, 1, 9, 5)
    lying[0, 0, 4, :] = 1
    turned, _ = Rotate(90)(x, torch.zeros(1), origin(1, 1))
    torch.testing.assert_close(turned, lying, atol=1e-5, rtol=0)
    upside_down, _ = Rotate(180)(*batch(1, 2, 4, 7), origin(1, 1))
    torch.testing.assert_close(upside_down, batch(1, 2, 4, 7)[0].flip(2, 3), atol=1e-5, rtol=0)


@settings(deadline=None)
@given(step=st.floats(-1000, 1000))
def test_any_angle_and_back_keeps_the_middle_of_a_smooth_image(step):
    grid = torch.linspace(-1, 1, 33)
    x = torch.exp(-4 * ((grid[:, None] - 0.2) ** 2 + grid[None, :] ** 2))[None, None]
    there, _ = Rotate(step)(x, torch.zeros(1), origin(1, 1))
    back, _ = Rotate(-step)(there, torch.zeros(1), origin(1, 1))
    assert (back - x)[..., 10:23, 10:23].abs().max() < 0.03
    assert there.sum().item() == pytest.approx(x.sum().item(), rel=0.05)


@given(seed=st.integers(0, 2**32), shard=st.integers(0, 30))
@settings(deadline=None)
def test_hues_keep_the_mean_colour_and_the_distance_from_grey(seed, shard):
    x, y = batch()
    new, targets = Recolour()(x, y, origin(shard, seed=seed))
    assert targets is y
    torch.testing.assert_close(new.mean(1), x.mean(1))
    torch.testing.assert_close(new.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(Recolour()(torch.ones_like(x), y, origin(shard, seed=seed))[0], torch.ones_like(x))


def test_grey_images_get_another_contrast_and_some_are_inverted():
    x, y = batch(channels=1)
    slopes = []
    for shard in range(40):
        new, _ = Recolour()(x, y, origin(shard, shards=40))
        slope = ((new - 0.5) / (x - 0.5)).median().item()
        torch.testing.assert_close(new, 0.5 + slope * (x - 0.5), atol=1e-5, rtol=1e-5)
        slopes.append(slope)
    assert all(0.5 <= abs(slope) <= 1.5 for slope in slopes)
    assert len(set(slopes)) == 40
    assert 10 < sum(slope < 0 for slope in slopes) < 30


# What is wrong


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Noise(-1.0), "Noise.level is -1.0, but it must be a finite number of at least 0."),
        (lambda: ShiftLabels(1.5), "ShiftLabels.share is 1.5, but it must be a number of at least 0 and at most 1."),
        (
            lambda: ShiftLabels(classes=0),
            "ShiftLabels.classes is 0, but it must be a whole number of at least 1 or None.",
        ),
        (
            lambda: Rotate(float("nan")),
            "Rotate.step is nan, but it must be a finite number.",
        ),
        (
            lambda: Rotate(1, shards=(1, 4)).fit(digits_of([0, 1]), 4),
            "partition.distortion.shards has 4, but the shards are 0 to 3: use only these.",
        ),
        (
            lambda: ShiftLabels().fit(digits_of([0.5, 1.5]), 1),
            "partition.distortion is ShiftLabels, but data.label does not hold one class from 0 a row: use such "
            "labels, or another distortion.",
        ),
        (
            lambda: ShiftLabels().fit(digits_of([-1, 1]), 1),
            "partition.distortion is ShiftLabels, but data.label does not hold one class from 0 a row: use such "
            "labels, or another distortion.",
        ),
        (
            lambda: Rotate(9).check(torch.zeros(2, 64)),
            "partition.distortion is Rotate, but the model's inputs have shape (64,) and type torch.float32, and "
            "images of real numbers, (channels, height, width), are expected: use images, a data.transform that makes "
            "them, or another distortion.",
        ),
        (
            lambda: Recolour().check(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)),
            "partition.distortion is Recolour, but the model's inputs have shape (3, 4, 4) and type torch.uint8, and "
            "images of real numbers, (channels, height, width), are expected: use images, a data.transform that makes "
            "them, or another distortion.",
        ),
    ],
)
def test_error_sentences(make, sentence):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value) == sentence
