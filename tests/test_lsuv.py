"""Tests of initializers.lsuv_: what it scales, what it finds, and that it changes nothing if it refuses."""

import copy
import math

import pytest
import torch
from initializer_cases import seeded
from torch import nn

from course_utils import mean_field
from course_utils.activations import gelu, relu, sigmoid, tanh
from course_utils.initializers import orthogonal_
from course_utils.lsuv import lsuv_


def filled(model, seed=1):
    """Fill all weights from a seed, so that nothing depends on how torch drew them."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.normal_(0, 0.1, generator=seeded(seed))
            elif name.endswith("bias"):
                p.zero_()
    return model


def stack(activation, depth=4, width=64):
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), activation)]
    return filled(nn.Sequential(*layers))


def batch(*shape, seed=2):
    return torch.randn(*shape, generator=seeded(seed))


def outputs(model, inputs):
    """Return the std of the output of every linear and convolutional layer."""
    stds, hooks = [], []
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            hook = lambda _, __, y: stds.append(y.double().std(correction=0).item())  # noqa: E731
            hooks.append(layer.register_forward_hook(hook))
    model(inputs)
    for hook in hooks:
        hook.remove()
    return stds


def check_unit_std(initializer, tolerance=1e-3):
    for activation in (nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.GELU()):
        model, x = stack(activation), batch(128, 64)
        initializer(model, x)
        assert all(abs(std - 1) <= tolerance for std in outputs(model, x))


def test_every_output_has_std_one():
    check_unit_std(lambda model, x: lsuv_(model, x, generator=seeded(3)))


def test_the_tolerance_is_the_callers():
    check_unit_std(lambda model, x: lsuv_(model, x, tolerance=1e-6, generator=seeded(3)), tolerance=1e-6)
    loose = lsuv_(stack(nn.ReLU()), batch(128, 64), tolerance=0.5, generator=seeded(3))
    assert min(loose.values()) == 1.0  # the first output is within it as drawn


def test_layers_that_are_scaled_one_by_one_without_passing_the_signal_on_are_caught():
    def all_from_one_pass(model, x):
        for layer, std in zip(model[::2], outputs(model, x), strict=True):
            layer.weight.data /= std

    with pytest.raises(AssertionError):
        check_unit_std(all_from_one_pass)


@pytest.mark.parametrize("activation", [relu, tanh, sigmoid, gelu], ids=lambda a: a.name)
def test_the_factors_are_the_quadrature_of_the_output(activation):
    """On orthogonal square weights the second layer's factor is 1 / RMS of the first's output, z ~ N(0, 1).

    A mean that the orthogonal matrix turns into different constants for the units counts as spread too.
    """

    class Phi(nn.Module):
        def forward(self, z):
            return activation(z)

    found = []
    for seed in range(20):
        factors = lsuv_(stack(Phi(), 2, 256), batch(256, 256, seed=seed), generator=seeded(100 + seed))
        found.append(factors["2"] / mean_field.gain_behind(activation))
    mean, error = (f(torch.tensor(found)).item() for f in (torch.mean, torch.std))
    # Two small biases of order 1 / 256: the mean over the units is no part of the std, and 1/n in the gain.
    assert abs(mean - 1) < 4 * error / math.sqrt(20) + 2 / 256


def test_the_weights_are_the_factor_times_orthogonal():
    model, x = stack(nn.ReLU()), batch(128, 64)
    factors, generator = lsuv_(model, x, generator=seeded(3)), seeded(3)
    assert list(factors) == ["0", "2", "4", "6"]
    for name, factor in factors.items():
        expected = orthogonal_(torch.empty(64, 64), generator=generator) * factor
        torch.testing.assert_close(model.get_submodule(name).weight, expected, rtol=1e-5, atol=1e-7)


def test_convolutions_batch_norm_and_keywords():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

        def forward(self, pixels):
            z = self.norm(self.conv(input=pixels)).relu().mean((2, 3))
            return self.head(z)

    model, x = filled(Net()), batch(32, 3, 8, 8)
    before = copy.deepcopy(model.norm.state_dict())
    factors = lsuv_(model, x, generator=seeded(1))
    assert list(factors) == ["conv", "head"]
    after = model.norm.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    torch.testing.assert_close(torch.tensor(outputs(model, x)), torch.ones(2), rtol=1e-3, atol=0)


def test_a_layer_that_is_called_twice_is_scaled_at_its_first_call():
    layer = nn.Linear(16, 16)
    model, x = filled(nn.Sequential(layer, nn.ReLU(), layer)), 3 * batch(64, 16)
    assert list(lsuv_(model, x, generator=seeded(0))) == ["0"]
    assert abs(layer(x).std(correction=0).item() - 1) < 1e-3


def test_without_biases_one_division_does():
    lsuv_(stack(nn.ReLU()), batch(128, 64), generator=seeded(0), max_iterations=1)
    with pytest.raises(ValueError, match="0 cannot be scaled: after 0 divisions"):
        lsuv_(stack(nn.ReLU()), 2 * batch(128, 64), generator=seeded(0), max_iterations=0)


def test_biases_take_several_divisions():
    model, x = stack(nn.Tanh(), 1), batch(128, 64)
    nn.init.normal_(model[0].bias, 0, 0.7, generator=seeded(5))
    bias = model[0].bias.clone()
    lsuv_(model, x, generator=seeded(0), max_iterations=20)
    assert torch.equal(model[0].bias, bias)
    assert abs(outputs(model, x)[0] - 1) < 1e-3
    with pytest.raises(ValueError, match="0 cannot be scaled: after 2 divisions"):
        lsuv_(model, x, generator=seeded(0), max_iterations=2)


def spoil_bias(model):
    nn.init.normal_(model[2].bias, 0, 2.0, generator=seeded(5))


def kill(model):
    model[0].bias.data.fill_(-100.0)


def break_input(model):
    model[1] = nn.LogSigmoid()
    model[0].bias.data.fill_(math.inf)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (spoil_bias, r"2 cannot be scaled: after 10 divisions its output has std 2\.\d+, not 1 \+- 0.001"),
        (kill, "2 cannot be scaled: its output has std 0 on these inputs"),
        (break_input, "0 cannot be scaled: its output has std nan"),
    ],
)
def test_a_layer_that_cannot_be_scaled_is_named_and_nothing_is_changed(plant, message):
    model = stack(nn.ReLU())
    plant(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        lsuv_(model, batch(128, 64), generator=seeded(0))
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert not any(layer._forward_hooks for layer in model)


def test_an_error_of_the_model_changes_nothing():
    model = stack(nn.ReLU())
    model.append(nn.Linear(3, 3))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        lsuv_(model, batch(128, 64), generator=seeded(0))
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_what_has_no_layers():
    x = batch(4, 16)
    with pytest.raises(ValueError, match="no linear or convolutional layer of ReLU was called that learns"):
        lsuv_(nn.ReLU(), x)


def test_no_gradient_is_recorded_and_the_weights_stay_leaves():
    model = stack(nn.ReLU())
    lsuv_(model, batch(128, 64), generator=seeded(0))
    assert all(p.is_leaf and p.requires_grad and p.grad is None for p in model.parameters())


class Counting(nn.Module):
    """A module that changes, in forward, everything that a module can hold."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(16, 16), nn.Parameter(torch.ones(3))
        self.norm = nn.utils.parametrizations.spectral_norm(nn.Bilinear(16, 16, 16))
        self.register_buffer("mask", torch.ones(1).expand(16))
        self.register_buffer("mean", torch.zeros(16))
        self.calls, self.seen, self.cache, self.plain = 0, [], {}, torch.zeros(2)

    def forward(self, x, fail):
        self.calls = self.calls + 1
        self.seen.append(x)
        self.cache["x"] = [x]
        self.plain += 1
        self.mean += x.mean(0)
        self.scale.data.mul_(2)
        self.new = x
        x = self.norm(x, x)
        return self.layer(x * self.mask) @ torch.ones(15 if fail else 16, 1)


@pytest.mark.parametrize("fail", [True, False])
def test_nothing_but_the_weights_changes_and_nothing_at_all_after_an_error(fail):
    model = filled(Counting())
    model.eval()
    before, attributes = copy.deepcopy(model.state_dict()), dict(vars(model))
    model.train()
    if fail:
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            lsuv_(model, batch(64, 16), True, generator=seeded(0))
    else:
        assert list(lsuv_(model, batch(64, 16), False, generator=seeded(0))) == ["layer"]
    changed = {name for name, values in model.state_dict().items() if not torch.equal(values, before[name])}
    assert changed == (set() if fail else {"layer.weight"})
    assert {name: vars(model)[name] for name in attributes if name != "training"} == {
        name: value for name, value in attributes.items() if name != "training"
    }
    assert (model.calls, model.seen, model.cache, model.plain.tolist()) == (0, [], {}, [0.0, 0.0])
    assert not hasattr(model, "new")


def test_frozen_weights_are_kept():
    model = stack(nn.ReLU(), depth=3)
    model[2].weight.requires_grad_(False)
    before = model[2].weight.clone()
    assert list(lsuv_(model, batch(128, 64), generator=seeded(0))) == ["0", "4"]
    assert torch.equal(model[2].weight, before)
    with pytest.raises(
        ValueError, match="no linear or convolutional layer of Sequential was called that learns"
    ):
        lsuv_(model.requires_grad_(False), batch(128, 64), generator=seeded(0))


def test_autocast_sees_the_scaled_weights():
    model, x = stack(nn.ReLU(), 2), 3 * batch(64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        lsuv_(model, x, generator=seeded(0), tolerance=0.01)
    assert all(abs(std - 1) < 0.02 for std in outputs(model, x))  # bfloat16 has 8 bits


def test_the_std_of_half_precision_is_not_rounded():
    model, x = stack(nn.ReLU(), 8).bfloat16(), batch(64, 64).bfloat16()
    lsuv_(model, x, generator=seeded(0), tolerance=4e-4)  # a tenth of the distance of bfloat16 numbers
    assert all(abs(std - 1) <= 4e-4 for std in outputs(model, x))


def test_tied_layers_are_scaled_at_the_first_call_and_no_tie_to_other_modules():
    model, x = filled(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))), 3 * batch(64, 16)
    model[2].weight = model[0].weight
    assert list(lsuv_(model, x, generator=seeded(0))) == ["0"]
    assert abs(model[0](x).std(correction=0).item() - 1) < 1e-3
    model = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 50))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"1\.weight is .* tied to another kind of layer"):
        lsuv_(model, torch.arange(50))


def test_a_refused_parametrization_is_not_even_looked_at():
    model = nn.Sequential(nn.Linear(16, 16), nn.utils.parametrizations.spectral_norm(nn.Linear(16, 3)))
    before = copy.deepcopy(dict(model.named_buffers()))
    with pytest.raises(ValueError, match=r"1\.weight is parametrized"):
        lsuv_(model, batch(64, 16))
    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
