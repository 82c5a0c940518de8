"""Activations: values, and derivatives against autograd."""

import pytest
import torch

from course_utils import activations
from course_utils.activations import Activation

ALL = [
    activations.linear,
    activations.tanh,
    activations.sigmoid,
    activations.softsign,
    activations.relu,
    activations.leaky_relu(0.25),
]
TORCH = {
    "tanh": torch.nn.functional.tanh,
    "sigmoid": torch.nn.functional.sigmoid,
    "softsign": torch.nn.functional.softsign,
    "relu": torch.nn.functional.relu,
    "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, 0.25),
    "linear": lambda z: z,
}
Z = torch.linspace(-6, 6, 25, dtype=torch.float64)  # contains 0, where ReLU has its kink


def check_derivative(activation):
    z = Z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(activation(z).sum(), z)
    torch.testing.assert_close(activation.derivative(Z), gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
def test_values_are_torchs(activation):
    torch.testing.assert_close(activation(Z), TORCH[activation.name](Z), rtol=1e-12, atol=1e-15)


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
