"""Points in a plane: their shapes, their standardization, their noise."""

import math

import pytest
import torch

from course_utils.data import circles, moons, spirals

PLANES = [moons, circles, spirals]


@pytest.mark.parametrize("draw", PLANES, ids=lambda f: f.__name__)
def test_points_are_standardized_and_their_labels_alternate(draw):
    inputs, labels = draw(101, generator=torch.Generator().manual_seed(0))
    assert inputs.shape == (101, 2)
    assert inputs.dtype == torch.float32
    assert labels.tolist() == [i % 2 for i in range(101)]
    assert inputs.mean(dim=0).abs().max() < 1e-6
    assert inputs.square().mean().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("draw", PLANES, ids=lambda f: f.__name__)
def test_points_come_from_the_generator_alone(draw):
    first, again, other = (draw(50, generator=torch.Generator().manual_seed(s))[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_circles_have_radii_of_two_to_one():
    inputs, labels = circles(20_000, noise=0.0, generator=torch.Generator().manual_seed(0))
    outer, inner = (inputs[labels == label].norm(dim=1) for label in (0, 1))
    # Centring with the mean of 20,000 points moves the centre by 1/sqrt(20,000) = 0.007 of a radius.
    assert (outer / outer.mean() - 1).abs().max() < 0.04
    assert (outer.mean() / inner.mean()).item() == pytest.approx(2, abs=0.01)


def test_moons_are_half_circles_around_each_others_ends():
    inputs, labels = moons(20_000, noise=0.0, generator=torch.Generator().manual_seed(0))
    upper, lower = (inputs[labels == label] for label in (0, 1))
    widths = [moon.amax(dim=0) - moon.amin(dim=0) for moon in (upper, lower)]
    for width in widths:  # a half circle is twice as wide as high
        assert (width[0] / width[1]).item() == pytest.approx(2, abs=0.01)
    radius = widths[0][0] / 2
    shift = (lower.amin(dim=0) - upper.amin(dim=0)) / radius
    assert shift.tolist() == pytest.approx([1.0, -0.5], abs=0.01)  # a radius to the right, half a radius down


def test_spirals_are_each_other_turned_by_half_a_turn():
    inputs, labels = spirals(20_000, noise=0.0, generator=torch.Generator().manual_seed(0))
    radius = inputs.norm(dim=1) / inputs.norm(dim=1).max()
    assert radius.min().item() == pytest.approx(0.1, abs=0.02)
    angle = torch.atan2(inputs[:, 1], inputs[:, 0]) - 3 * math.pi * radius - math.pi * labels
    off = torch.atan2(torch.sin(angle), torch.cos(angle)).abs()
    assert off[radius > 0.3].max() < 0.2  # the centre of 20,000 points is off by 0.007; near the origin more


def test_noise_has_the_std_that_was_asked_for():
    clean, noisy = (
        circles(4000, noise=noise, generator=torch.Generator().manual_seed(0))[0] for noise in (0.0, 0.1)
    )
    slope = (noisy * clean).mean() / clean.square().mean()
    std = (noisy / slope - clean).std() * math.sqrt((1 + 0.25) / 4)  # the std of a coordinate at radius 1
    assert std.item() == pytest.approx(0.1, abs=4 * 0.1 / math.sqrt(2 * 8000))


@pytest.mark.parametrize("points", [0, 1])
@pytest.mark.parametrize("draw", PLANES, ids=lambda f: f.__name__)
def test_points_that_cannot_be_standardized(draw, points):
    with pytest.raises(ValueError, match=f"at least 2 points, one of each class; got {points}"):
        draw(points, generator=torch.Generator())
