"""Profiles: what they measure, on networks small enough to compute by hand."""

import math
import re

import numpy as np
import pytest
import torch

from course_utils import activations, propagation
from course_utils.activations import Activation
from course_utils.comparison import compare, mean_of, refute, std_of
from course_utils.initializers import eye_, lecun_normal_
from course_utils.networks import Ensemble, PlainNetwork
from course_utils.propagation import Profile


def identity_(weight, generator):
    return eye_(weight)


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def make(activation=activations.tanh, widths=(6, 5, 4), seed=0):
    return PlainNetwork(
        list(widths), activation, lecun_normal_, generator=torch.Generator().manual_seed(seed)
    )


def test_profile_statistics_are_over_units():
    network = PlainNetwork([4, 4], activations.relu, identity_)
    profile = propagation.signal_profile(network, torch.tensor([[1.0, -1.0, 3.0, -3.0]]))
    np.testing.assert_allclose(profile.mean, [[0.0, 1.0]])
    np.testing.assert_allclose(profile.second_moment, [[5.0, 2.5]])
    np.testing.assert_allclose(profile.rms, np.sqrt([[5.0, 2.5]]))
    np.testing.assert_allclose(profile.std, np.sqrt([[5.0, 1.5]]))  # 2.5 - 1**2: not the second moment


def test_one_row_per_input():
    profile = propagation.signal_profile(make(), normal(7, 6))
    assert profile.mean.shape == profile.second_moment.shape == (7, 3)


def test_gradient_profile_against_finite_differences():
    network = make().double()
    x, u = normal(1, 6).double(), normal(1, 4).double()
    profile = propagation.gradient_second_moments(network, x, u)
    step = 1e-6 * torch.eye(6, dtype=torch.float64)
    slopes = ((network(x + step) - network(x - step)) @ u.T / 2e-6).squeeze().detach()
    np.testing.assert_allclose(profile[0, 0], slopes.square().mean().item(), rtol=1e-6)
    np.testing.assert_allclose(profile[0, -1], u.square().mean().item())
    assert profile.shape == (1, 3)


def test_profiles_leave_the_network_and_the_input_alone():
    network, x = make(), normal(2, 6)
    propagation.signal_profile(network, x)
    propagation.gradient_second_moments(network, x, torch.ones(2, 4))
    assert all(p.grad is None for p in network.parameters())
    assert not x.requires_grad


def test_simulate_draws_a_new_network_and_input_each_time():
    generator = torch.Generator().manual_seed(0)
    profile = propagation.simulate(activations.linear, lecun_normal_, [8, 8, 8], count=5, generator=generator)
    assert profile.second_moment.shape == (5, 3)
    assert len(np.unique(profile.second_moment)) == 15


@pytest.mark.parametrize("activation", [activations.linear, activations.tanh], ids=lambda a: a.name)
def test_seeds_decide(activation):
    def run(generator):
        return propagation.norm_chain(activation, 1.0, 3, 8, count=4, generator=generator)

    same = [run(torch.Generator().manual_seed(1)).second_moment for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (run(torch.Generator().manual_seed(2)).second_moment != same[0]).all()


def test_the_chain_draws_every_one_of_many_networks():
    profile = propagation.norm_chain(
        activations.tanh, 1.0, 3, 8, count=1203, generator=torch.Generator().manual_seed(0)
    )
    assert profile.mean.shape == profile.second_moment.shape == (1203, 4)
    assert len(np.unique(profile.second_moment)) == 1203 * 4


def test_width_one_and_depth_zero():
    for activation in (activations.linear, activations.relu):
        profile = propagation.norm_chain(
            activation, 1.0, 0, 1, count=3, generator=torch.Generator().manual_seed(0)
        )
        np.testing.assert_allclose(profile.second_moment, profile.mean**2)


def test_a_dead_relu_signal_stays_zero():
    profile = propagation.norm_chain(
        activations.relu, 1.0, 20, 1, count=200, generator=torch.Generator().manual_seed(0)
    )
    assert (profile.second_moment[:, -1] == 0).mean() > 0.9
    assert np.isfinite(profile.second_moment).all()


def check_tiny_squares(squares):
    """`squares` maps a float32 batch of the value x to x**2, which float32 cannot hold for x = 1e-30."""
    x = torch.full((2, 4), 1e-30)
    np.testing.assert_allclose(squares(x), np.full((2, 3), x[0, 0].item() ** 2), rtol=1e-12)


def identity_network():
    return PlainNetwork([4, 4, 4], activations.linear, identity_)


def test_squares_of_tiny_signals_are_float64():
    check_tiny_squares(lambda x: propagation.signal_profile(identity_network(), x).second_moment)


def test_squares_of_tiny_relu_signals_are_float64():
    inputs, matrix = np.full((1, 2, 1), 1e-30, np.float32), np.ones((1, 3, 2), np.float32)
    moments = propagation.relu_signals(inputs, [matrix])
    np.testing.assert_allclose(moments, [[1e-60, 4e-60]], rtol=1e-6)


def test_squares_of_tiny_gradients_are_float64():
    check_tiny_squares(lambda u: propagation.gradient_second_moments(identity_network(), torch.ones(2, 4), u))


def test_a_square_taken_in_float32_is_caught():
    def late(x):
        return torch.stack([x.square().mean(dim=1).double()] * 3, dim=1).numpy()

    with pytest.raises(AssertionError):
        check_tiny_squares(late)


def test_a_second_moment_rounded_below_the_squared_mean_has_std_0():
    mean = np.array([[0.1, 3.0]])
    assert Profile(mean, np.nextafter(mean**2, 0)).std.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    "fault",
    [
        {"count": 0},
        {"count": 2.0},
        {"width": 0},
        {"width": 4.5},
        {"depth": -1},
        {"depth": 1.5},
        {"gain": math.nan},
        {"gain": math.inf},
        {"gain": -1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("activation", [activations.linear, activations.tanh], ids=lambda a: a.name)
def test_the_chain_names_what_it_cannot_run(activation, fault):
    arguments = {"count": 2, "width": 4, "depth": 3, "gain": 1.0} | fault
    (passed,) = (f"{name}={value}" for name, value in fault.items())
    with pytest.raises(ValueError, match=f"got.*{re.escape(passed)}"):
        propagation.norm_chain(activation=activation, generator=torch.Generator().manual_seed(0), **arguments)


@pytest.mark.parametrize(
    ("count", "widths", "passed"),
    [
        (0, [4, 4], "count=0"),
        (-1, [4, 4], "count=-1"),
        (2, [0, 4], r"\[0, 4\]"),
        (2, [4.5, 4], r"\[4\.5, 4\]"),
    ],
)
def test_simulate_names_what_it_cannot_run(count, widths, passed):
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=f"got.*{passed}"):
        propagation.simulate(activations.tanh, lecun_normal_, widths, count=count, generator=generator)


def test_only_the_linear_activation_itself_takes_the_shortcut():
    namesake = Activation("linear", torch.relu, torch.ones_like)
    named, relu = (
        propagation.norm_chain(a, 1.0, 4, 8, count=3, generator=torch.Generator().manual_seed(0))
        for a in (namesake, activations.relu)
    )
    np.testing.assert_array_equal(named.second_moment, relu.second_moment)


def test_unit_logits_do_not_depend_on_the_size_of_any_image():
    generator = torch.Generator().manual_seed(0)
    network = Ensemble(2, [6, 16, 16, 3], activations.relu, lecun_normal_, generator=generator)
    inputs, sizes = normal(4, 6), torch.tensor([[0.1], [1.0], [3.0], [10.0]])
    scaled = propagation.unit_logits(network, sizes * inputs)
    torch.testing.assert_close(scaled, propagation.unit_logits(network, inputs))
    assert scaled.shape == (2, 4, 3)


# Every function that draws: what it returns from a generator, as one array or several.
DRAWN = {
    "simulate": lambda g: propagation.simulate(activations.tanh, lecun_normal_, [4, 4], count=3, generator=g),
    "norm_chain": lambda g: propagation.norm_chain(activations.tanh, 1.0, 2, 4, count=3, generator=g),
    "norm_chain linear": lambda g: propagation.norm_chain(
        activations.linear, 1.0, 2, 4, count=3, generator=g
    ),
    "matrix_products": lambda g: propagation.matrix_products(lecun_normal_, 4, 2, count=3, generator=g),
    "leaky_chain": lambda g: propagation.leaky_chain(0.1, [4, 4], [0.5], count=3, generator=g),
    "relu_gradient_chain": lambda g: propagation.relu_gradient_chain([4, 4], [0.5], count=3, generator=g),
    "log_lengths": lambda g: propagation.log_lengths("Gaussian", 4, 2, count=3, generator=g),
    "branch_draws": lambda g: propagation.branch_draws(2, 4, count=3, generator=g),
}


@pytest.mark.parametrize("name", DRAWN)
def test_draws_come_from_the_generator_alone(name):
    first, again, other = (
        np.concatenate([np.ravel(part) for part in DRAWN[name](torch.Generator().manual_seed(seed))])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_inputs_do_not_begin_to_record_gradients():
    inputs, errors = torch.ones(2, 4), torch.ones(2, 4)
    propagation.gradient_second_moments(identity_network(), inputs, errors)
    propagation.layer_gradients(lambda z, matrix: z @ matrix, inputs, [torch.eye(4)], errors)
    assert not inputs.requires_grad


def test_a_branch_adds_a_vector_whose_size_scatters_by_five_over_n():
    # 2 chi²_K / n, K ~ Binomial(n, 1/2), has variance 5/n; with K = n/2 it would have 4/n.
    size, *_ = propagation.branch_draws(40, 64, count=2500, generator=torch.Generator().manual_seed(5))
    moments = 64 * size.ravel() ** 2
    compare(("mean", 1, mean_of(moments)), ("std", math.sqrt(5 / 64), std_of(moments)))
    refute(("std with K = n/2", math.sqrt(4 / 64), std_of(moments)))
