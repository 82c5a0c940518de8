"""Plain fully connected networks whose initialization and activation are arguments."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from course_utils.activations import Activation
from course_utils.initializers import zeros_

Initializer = Callable[..., Tensor]


class PlainNetwork(nn.Module):
    """h_l = phi(h_{l-1} @ W_l.T + b_l) for l = 1..depth, the activation after every layer.

    `widths` lists fan-in and fan-outs: depth + 1 numbers. Weights have torch's layout (fan_out, fan_in) and
    are filled in place by `weight_init_(tensor, generator=generator)`; biases by `bias_init_(tensor)`. Built
    in float32 on the CPU; `.to(...)` moves it.

    Raises: ValueError for fewer than two widths, or one that is not positive.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: Activation,
        weight_init_: Initializer,
        *,
        bias_init_: Initializer = zeros_,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths needs at least fan-in and fan-out, all positive; got {list(widths)}")
        self.activation = activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            weight, bias = torch.empty(fan_out, fan_in), torch.empty(fan_out)
            weight_init_(weight, generator=generator)
            bias_init_(bias)
            self.weights.append(weight)
            self.biases.append(bias)

    def layers(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield h_0 = inputs, h_1, ..., h_depth; each has shape (batch, width)."""
        h = inputs
        yield h
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = self.activation(nn.functional.linear(h, weight, bias))
            yield h

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (batch, fan_in) to the last layer's outputs (batch, fan_out)."""
        *_, outputs = self.layers(inputs)
        return outputs
