"""Activation functions, each defined once: name, function and derivative.

Everything takes and returns tensors of any shape and floating dtype, so that networks (float32, autograd)
and theory (float64 quadrature) use the very same function.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """An element-wise activation function with its derivative.

    `name` is the one that `initializers.calculate_gain` knows, where it knows the function at all.
    """

    name: str
    function: Callable[[Tensor], Tensor] = field(repr=False)
    derivative: Callable[[Tensor], Tensor] = field(repr=False)

    def __call__(self, z: Tensor) -> Tensor:
        """Return phi(z), element by element; the shape is that of `z`."""
        return self.function(z)


def _sigmoid_derivative(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


linear = Activation("linear", lambda z: z, torch.ones_like)
tanh = Activation("tanh", torch.tanh, lambda z: torch.cosh(z).reciprocal().square())
sigmoid = Activation("sigmoid", torch.sigmoid, _sigmoid_derivative)
softsign = Activation("softsign", lambda z: z / (1 + z.abs()), lambda z: (1 + z.abs()).reciprocal().square())
relu = Activation("relu", torch.relu, lambda z: (z > 0).to(z.dtype))


def leaky_relu(negative_slope: float) -> Activation:
    """Return the leaky ReLU: z for z > 0, `negative_slope` * z otherwise. Source: Maas et al. (2013)."""
    return Activation(
        "leaky_relu",
        lambda z: torch.where(z > 0, z, negative_slope * z),
        lambda z: torch.where(z > 0, torch.ones_like(z), negative_slope),
    )
