"""Activations: values, and derivatives against autograd."""

import math

import pytest
import torch

from course_utils import activations
from course_utils.activations import Activation

ALL = [
    *(value for value in vars(activations).values() if isinstance(value, Activation)),
    activations.leaky_relu(0.25),
    activations.from_function(torch.nn.functional.mish),
]
# Where torch.nn.functional has another name, or has been used for ours.
TORCH = {
    "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, 0.25),
    "linear": lambda z: z,
    "erf": torch.erf,
    "hard_tanh": torch.nn.functional.hardtanh,
    "gelu": lambda z: z * (1 + torch.erf(z / math.sqrt(2))) / 2,
    "selu": torch.nn.SELU(),
}
Z = torch.linspace(-6, 6, 25, dtype=torch.float64)  # contains 0, where ReLU has its kink


def check_derivative(activation):
    z = Z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(activation(z).sum(), z)
    torch.testing.assert_close(activation.derivative(Z), gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
def test_values_are_torchs(activation):
    torchs = TORCH.get(activation.name) or getattr(torch.nn.functional, activation.name)
    torch.testing.assert_close(activation(Z), torchs(Z), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
def test_derivative_is_autograds(activation):
    check_derivative(activation)


def test_a_wrong_derivative_is_caught():
    wrong = Activation("tanh", torch.tanh, lambda z: 1 - torch.tanh(z))
    with pytest.raises(AssertionError):
        check_derivative(wrong)


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(activation, dtype):
    z = torch.ones(2, 3, 4, dtype=dtype)
    for result in (activation(z), activation.derivative(z)):
        assert result.shape == z.shape
        assert result.dtype == dtype


def test_derivatives_stay_finite_where_the_function_saturates():
    far = torch.tensor([-1e3, 1e3], dtype=torch.float64)
    for activation in ALL:
        assert torch.isfinite(activation.derivative(far)).all(), activation.name


def test_the_slope_of_leaky_relu_is_a_float64():
    check_derivative(activations.leaky_relu(0.1))


def test_a_slope_rounded_to_float32_is_caught():
    slope = torch.tensor(0.1)
    leaky = activations.leaky_relu(0.1)
    wrong = Activation("leaky_relu", leaky.function, lambda z: torch.where(z > 0, 1.0, slope).to(z.dtype))
    with pytest.raises(AssertionError):
        check_derivative(wrong)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: max(z, 0), "must take a tensor of any shape; on one of shape .*ambiguous"),
        (math.tanh, "tanh must take a tensor of any shape"),
        (lambda z: z.sum(), r"must keep shape \(8,\) and dtype torch.float64; it returned \(\(\), "),
        (lambda z: z > 0, "must keep shape .* torch.bool"),
        (lambda z: z.tolist(), "must keep shape .* it returned list"),
        (torch.sqrt, "sqrt must be finite; at .*nan"),
        (lambda z: torch.softmax(z, -1), "each element its own value"),
        (lambda z: z.tanh_(), "must not overwrite its argument"),
        (lambda z: z.clamp_(min=-2.9), "must not overwrite its argument"),  # only the first of the numbers
        (lambda z: (z > 0).to(z.dtype), "no automatic derivative"),
    ],
)
def test_a_function_that_is_no_activation(function, message):
    with pytest.raises(ValueError, match=message):
        activations.from_function(function)


def test_a_function_of_ones_own():
    swish = activations.from_function(lambda z: z * torch.sigmoid(z), name="swish", kinks=(1.0,))
    assert (swish.name, swish.kinks) == ("swish", (1.0,))
    z = torch.linspace(-2, 2, 5, requires_grad=True)
    assert not swish.derivative(z).requires_grad
    check_derivative(swish)
    expected = swish.derivative(z)
    for without_gradients in (torch.no_grad, torch.inference_mode):  # as measurements run
        with without_gradients():
            assert torch.equal(swish.derivative(1 * z), expected)


def test_kinks_are_where_the_derivative_jumps():
    for activation in ALL:
        z = torch.linspace(-3, 3, 601, dtype=torch.float64)
        jumps = z[1:][activation.derivative(z).diff().abs() > 0.1]
        assert all(min(abs(jump - kink) for kink in activation.kinks) < 0.02 for jump in jumps), (
            activation.name
        )


@pytest.mark.parametrize("slope", [math.nan, math.inf, "0.1", None])
def test_a_slope_that_is_no_finite_number_is_refused(slope):
    with pytest.raises(ValueError, match="expected a finite number as negative slope; got "):
        activations.leaky_relu(slope)


def test_an_activation_shows_its_name_and_kinks():
    assert repr(activations.relu) == "Activation(name='relu', kinks=(0.0,))"
