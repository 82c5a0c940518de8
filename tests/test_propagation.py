"""Profiles: what they measure, on networks small enough to compute by hand."""

from functools import partial

import numpy as np
import pytest
import torch

from course_utils import activations, propagation
from course_utils.initializers import eye_, lecun_normal_
from course_utils.networks import PlainNetwork
from course_utils.propagation import Profile


def identity_(weight, generator):
    return eye_(weight)


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
    profile = propagation.signal_profile(make(), torch.randn(7, 6))
    assert profile.mean.shape == profile.second_moment.shape == (7, 3)


def test_gradient_profile_against_finite_differences():
    network = make().double()
    x, u = torch.randn(1, 6, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    profile = propagation.gradient_profile(network, x, u)
    step = 1e-6 * torch.eye(6, dtype=torch.float64)
    slopes = ((network(x + step) - network(x - step)) @ u.T / 2e-6).squeeze().detach()
    np.testing.assert_allclose(profile[0, 0], slopes.square().mean().item(), rtol=1e-6)
    np.testing.assert_allclose(profile[0, -1], u.square().mean().item())
    assert profile.shape == (1, 3)


def test_profiles_leave_the_network_and_the_input_alone():
    network, x = make(), torch.randn(2, 6)
    propagation.signal_profile(network, x)
    propagation.gradient_profile(network, x, torch.ones(2, 4))
    assert all(p.grad is None for p in network.parameters())
    assert not x.requires_grad


def test_stack_keeps_rows_in_order():
    a, b = (Profile(np.full((n, 3), n), np.full((n, 3), n)) for n in (1, 2))
    stacked = Profile.stack(p for p in (a, b))
    assert stacked.mean[:, 0].tolist() == [1, 2, 2]


def test_simulate_draws_a_new_network_and_input_each_time():
    generator = torch.Generator().manual_seed(0)
    profile = propagation.simulate(5, [8, 8, 8], activations.linear, lecun_normal_, generator=generator)
    assert profile.second_moment.shape == (5, 3)
    assert len(np.unique(profile.second_moment)) == 15


@pytest.mark.parametrize("activation", [activations.linear, activations.tanh], ids=lambda a: a.name)
def test_seeds_decide(activation):
    run = partial(propagation.norm_chain, 4, 8, 3, activation, 1.0)
    same = [run(np.random.default_rng(1)).second_moment for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (run(np.random.default_rng(2)).second_moment != same[0]).all()


def test_the_chain_draws_every_network_in_chunks_too(monkeypatch):
    monkeypatch.setattr(propagation, "_CHUNK", 3)
    profile = propagation.norm_chain(7, 8, 3, activations.tanh, 1.0, np.random.default_rng(0))
    assert len(np.unique(profile.second_moment)) == 7 * 4


def test_width_one_and_depth_zero():
    for activation in (activations.linear, activations.relu):
        profile = propagation.norm_chain(3, 1, 0, activation, 1.0, np.random.default_rng(0))
        np.testing.assert_allclose(profile.second_moment, profile.mean**2)


def test_a_dead_relu_signal_stays_zero():
    profile = propagation.norm_chain(200, 1, 20, activations.relu, 1.0, np.random.default_rng(0))
    assert (profile.second_moment[:, -1] == 0).mean() > 0.9
    assert np.isfinite(profile.second_moment).all()
