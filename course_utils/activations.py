"""Activation functions, each defined once: name, function and derivative.

Everything takes and returns tensors of any shape and floating dtype, so that networks (float32, autograd)
and theory (float64 quadrature) use the very same function.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from course_utils.checks import check_element_wise


@dataclass(frozen=True)
class Activation:
    """An element-wise activation function with its derivative.

    `name` is the one that `initializers.calculate_gain` knows, where it knows the function at all. `kinks`
    are the arguments at which function or derivative is not smooth: quadrature puts the ends of panels there.
    """

    name: str
    function: Callable[[Tensor], Tensor] = field(repr=False)
    derivative: Callable[[Tensor], Tensor] = field(repr=False)
    kinks: tuple[float, ...] = (0.0,)

    def __call__(self, z: Tensor) -> Tensor:
        """Return phi(z), element by element; the shape is that of `z`."""
        return self.function(z)


def _gelu_derivative(z: Tensor) -> Tensor:
    return torch.special.ndtr(z) + z * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _selu_derivative(z: Tensor) -> Tensor:
    # The negative branch has the limit -scale * alpha, so that its derivative is selu(z) + scale * alpha.
    scale, limit = torch.selu(torch.ones_like(z)), torch.selu(torch.full_like(z, -math.inf))
    return torch.where(z > 0, scale, torch.selu(z) - limit)


linear = Activation("linear", lambda z: z, torch.ones_like)
tanh = Activation("tanh", torch.tanh, lambda z: torch.cosh(z).reciprocal().square())
sigmoid = Activation("sigmoid", torch.sigmoid, lambda z: torch.sigmoid(z) * torch.sigmoid(-z))
softsign = Activation("softsign", lambda z: z / (1 + z.abs()), lambda z: (1 + z.abs()).reciprocal().square())
relu = Activation("relu", torch.relu, lambda z: (z > 0).to(z.dtype))
gelu = Activation("gelu", F.gelu, _gelu_derivative)
silu = Activation("silu", F.silu, lambda z: torch.sigmoid(z) * (1 + z * torch.sigmoid(-z)))
selu = Activation("selu", torch.selu, _selu_derivative)
erf = Activation("erf", torch.erf, lambda z: 2 / math.sqrt(math.pi) * torch.exp(-(z**2)))
hard_tanh = Activation("hard_tanh", F.hardtanh, lambda z: (z.abs() < 1).to(z.dtype), kinks=(-1.0, 1.0))


def leaky_relu(negative_slope: float) -> Activation:
    """Return the leaky ReLU: z for z > 0, `negative_slope` * z otherwise. Source: Maas et al. (2013).

    Raises: ValueError for a slope that is no finite number.
    """
    if not isinstance(negative_slope, Real) or not math.isfinite(negative_slope):
        raise ValueError(f"expected a finite number as negative slope; got {negative_slope!r}")
    return Activation(
        "leaky_relu",
        lambda z: torch.where(z > 0, z, negative_slope * z),
        lambda z: torch.where(z > 0, torch.ones_like(z), negative_slope),
    )


def from_function(
    function: Callable[[Tensor], Tensor], *, name: str | None = None, kinks: tuple[float, ...] = (0.0,)
) -> Activation:
    """Return an Activation for a function of your own, with its derivative by automatic differentiation.

    function: takes a tensor of any shape and returns one of the same shape and dtype, element by element.
    name: by default the function's own. kinks: where it is not smooth, such as (-1, 1) for a hard tanh.
    Raises: ValueError as `check_element_wise`, and if the function has no derivative.
    """
    name = check_element_wise(function, name)

    def derivative(z: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            z = z.clone().detach().requires_grad_()
            return torch.autograd.grad(function(z).sum(), z, materialize_grads=True)[0]

    try:
        derivative(torch.linspace(-3, 3, 8, dtype=torch.float64))
    except Exception as error:
        raise ValueError(f"{name} has no automatic derivative, so build an Activation: {error}") from error
    return Activation(name, function, derivative, kinks)
