"""The networks of the playground: what the names in its menus promise, and what two networks share."""

import math
import re

import numpy as np
import pytest
import torch

from course_utils.playground.engine import make_task
from course_utils.playground.network import MENUS, SCHEMES, Settings, build_network, linear_maps

X = make_task("moons", 0).train_inputs
CONSTANTS = {"zeros", "constant 0.1"}  # the schemes that draw nothing


def network(seed=0, **settings):
    return build_network(Settings(**settings), X, 2, seed)


def weights(seed=0, **settings):
    return [layer.weight.detach() for layer in linear_maps(network(seed, **settings))]


def test_hidden_layers_are_named():
    names = [name for name, _ in network(depth=3).named_children()]
    assert names == ["hidden_1", "hidden_2", "hidden_3", "output"]


@pytest.mark.parametrize("width", [32, 2])  # with 2 also the first layer keeps the width, and has no branch
def test_residual_layers_add_their_input_from_the_second_on(width):
    plain, branched = (network(depth=3, width=width, residual=residual) for residual in (False, True))
    h = plain.hidden_1(X)
    assert torch.equal(h, branched.hidden_1(X))
    torch.testing.assert_close(branched.hidden_2(h), h + plain.hidden_2(h))


# Second moments of weights in units of 1 / fan_in, for a layer of 32 by 32, where fan-in and fan-out agree.
SECOND_MOMENTS = {
    "zeros": 0,
    "constant 0.1": 0.32,
    "N(0, 1)": 32,
    "N(0, 0.01²)": 32e-4,
    "torch default U(±1/√n)": 1 / 3,
    "LeCun normal": 1,
    "LeCun uniform": 1,
    "Xavier normal": 1,
    "Xavier uniform": 1,
    "Kaiming normal, fan-in": 2,
    "Kaiming normal, fan-out": 2,
    "Kaiming uniform, fan-in": 2,
    "Kaiming uniform, fan-out": 2,
    "truncated LeCun": 1,
    "truncated Kaiming": 2,
    "orthogonal": 1,
    "looks-linear": 2,  # as Kaiming's: it is made for ReLUs
    "sparse, 80 % zeros": 1,
}


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "LSUV"])
def test_schemes_have_their_second_moment(scheme):
    layers = [w for seed in range(3) for w in weights(seed, scheme=scheme, depth=12)[1:-1]]
    moments = [(32 * layer.square().mean()).item() for layer in layers]
    error = np.std(moments, ddof=1) / math.sqrt(len(moments))
    wanted = SECOND_MOMENTS[scheme]
    assert abs(np.mean(moments) - wanted) <= 4 * error + 1e-5 * wanted


@pytest.mark.parametrize("family", ["Kaiming normal", "Kaiming uniform"])
def test_fan_in_and_fan_out_differ_in_the_first_layer(family):
    inwards, outwards = (weights(scheme=f"{family}, fan-{side}")[0] for side in ("in", "out"))
    torch.testing.assert_close(outwards, inwards / 4)  # fans 2 and 32


# E w⁴ / (E w²)² of the law that a scheme's name speaks of, by what the name contains; cut off at 2 std.
KURTOSES = {"truncated": 2.366, "normal": 3, "N(": 3, "uniform": 1.8, "U(": 1.8}


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if any(law in name for law in KURTOSES)])
def test_schemes_have_the_law_that_they_are_named_after(scheme):
    drawn = torch.cat([torch.stack(weights(seed, scheme=scheme, depth=12)[1:-1]) for seed in range(3)])
    kurtoses = drawn.pow(4).mean(dim=(1, 2)) / drawn.square().mean(dim=(1, 2)).square()
    error = kurtoses.std().item() / math.sqrt(len(kurtoses))
    wanted = next(kurtosis for law, kurtosis in KURTOSES.items() if law in scheme)
    assert abs(kurtoses.mean().item() - wanted) <= 4 * error < 0.25


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_torchs_default_draws_biases(scheme):
    layers = linear_maps(network(scheme=scheme))
    if scheme.startswith("torch"):
        largest = [layer.bias.abs().max().item() * math.sqrt(layer.in_features) for layer in layers]
        assert min(largest[:-1]) > 0.9  # of 32 entries; the output has two
        assert max(largest) <= 1
    else:
        assert not any(layer.bias.any() for layer in layers)


def test_looks_linear_is_linear_and_keeps_the_signal():
    net = network(scheme="looks-linear", depth=6)
    x, y = torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(net(x + 2 * y), net(x) + 2 * net(y), atol=1e-5, rtol=1e-4)
        sizes = [net[:depth](x).square().mean().sqrt().item() for depth in range(1, 7)]
    assert np.ptp(sizes) < 1e-5


@pytest.mark.parametrize("change", [{"activation": "tanh"}, {"width": 5}])
def test_looks_linear_where_it_does_not_apply(change):
    with pytest.raises(ValueError, match="need ReLU and an even width"):
        network(scheme="looks-linear", **change)


def test_lsuv_gives_every_linear_map_outputs_of_std_1():
    h = X
    for layer in linear_maps(network(scheme="LSUV", activation="tanh")):
        z = layer(h)
        assert z.std(correction=0).item() == pytest.approx(1, abs=1e-3)  # LSUV's own tolerance
        h = torch.tanh(z)


def test_batch_norm_starts_with_the_statistics_of_the_data():
    first = network(norm="batch").hidden_1
    z = first.linear(X).detach()
    torch.testing.assert_close(first.norm.running_mean, z.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.norm.running_var, z.var(dim=0), rtol=1e-4, atol=1e-5)
    assert first.norm.momentum == 0.1


def test_layer_norm_normalizes_over_units():
    z = network(norm="layer").hidden_1.pre_activation(X)
    torch.testing.assert_close(z.mean(dim=1), torch.zeros(len(X)), rtol=0, atol=1e-5)


def test_numbers_in_labels_are_those_that_are_used():
    activation = next(name for name in MENUS["activation"] if name.startswith("leaky"))
    slope, z = float(activation.split()[-1]), torch.tensor([-2.0, 3.0])
    torch.testing.assert_close(MENUS["activation"][activation](z), torch.tensor([-2 * slope, 3.0]))
    sparse = next(name for name in SCHEMES if name.startswith("sparse"))
    zeros = [(w == 0).double().mean().item() for w in weights(scheme=sparse)[1:-1]]
    assert zeros == pytest.approx(
        [int(re.search(r"\d+", sparse)[0]) / 100] * 3, abs=1 / 32
    )  # rounded a column


# What two networks share


def test_deeper_networks_begin_with_the_same_weights():
    shallow, deep = weights(), weights(depth=8)
    assert all(map(torch.equal, shallow[:4], deep[:4]))
    assert torch.equal(shallow[-1], deep[-1])
    assert not torch.equal(deep[1], deep[2])


def test_gain_and_law_scale_the_same_draws():
    gained = weights(scheme="LeCun normal", gain=math.sqrt(2))
    for small, large, scaled in zip(weights(scheme="LeCun normal"), weights(), gained, strict=True):
        torch.testing.assert_close(large, small * math.sqrt(2))
        torch.testing.assert_close(scaled, large)


def test_the_gain_is_a_factor_on_weights_and_not_on_biases():
    plain, gained = (network(scheme="torch default U(±1/√n)", gain=gain) for gain in (1.0, 3.0))
    for one, other in zip(linear_maps(plain), linear_maps(gained), strict=True):
        torch.testing.assert_close(other.weight, 3 * one.weight)
        assert torch.equal(other.bias, one.bias)


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme not in CONSTANTS])
def test_the_seed_draws_every_weight_and_nothing_else_does(scheme):
    before = torch.get_rng_state()
    first, again, other = (weights(seed, scheme=scheme) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.any())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 0},
        {"width": 0},
        {"activation": "relu"},
        {"norm": "group"},
        {"scheme": "He"},
        {"optimizer": "LBFGS"},
        {"gain": -1.0},
        {"gain": math.nan},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=f"got .*{re.escape(str(next(iter(change.values()))))}"):
        Settings(**change)
