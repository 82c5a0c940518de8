"""Plain fully connected networks whose initialization and activation are arguments.

`PlainNetwork` is for looking at one network's signals; `Ensemble` is for training many of them at once.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from course_utils.activations import Activation
from course_utils.initializers import zeros_

Initializer = Callable[..., Tensor]


def _check_widths(widths: Sequence[int]) -> None:
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths needs at least fan-in and fan-out, all positive; got {list(widths)}")


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
        _check_widths(widths)
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


class Ensemble(nn.Module):
    """`networks` classifiers of equal shape, independent of one another and evaluated together.

    h_l = phi(h_{l-1} @ W_l.T + b_l) for every layer but the last, which returns logits. Each matrix of each
    network (fan_out, fan_in) is filled alone by `weight_init_(tensor, generator=generator)`, the last one by
    `output_init_` (if None, like the others), biases by `bias_init_(tensor)`. A layer's weights lie in one
    tensor (networks, fan_out, fan_in). The gradient of the summed losses gives each network its own, so that
    an element-wise optimizer (SGD, Adam, RMSprop; not LBFGS) trains each as if it were alone.

    Raises: ValueError for fewer than one network or two widths, or a width that is not positive.
    """

    def __init__(
        self,
        networks: int,
        widths: Sequence[int],
        activation: Activation,
        weight_init_: Initializer,
        *,
        output_init_: Initializer | None = None,
        bias_init_: Initializer = zeros_,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_widths(widths)
        if networks < 1:
            raise ValueError(f"expected at least one network; got {networks}")
        self.activation = activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        inits = [weight_init_] * (len(widths) - 2) + [output_init_ or weight_init_]
        for init_, (fan_in, fan_out) in zip(inits, pairwise(widths), strict=True):
            weight, bias = torch.empty(networks, fan_out, fan_in), torch.empty(networks, 1, fan_out)
            for matrix, vector in zip(weight, bias, strict=True):
                init_(matrix, generator=generator)
                bias_init_(vector)
            self.weights.append(weight)
            self.biases.append(bias)

    def layers(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield h_1, ..., h_{depth-1} and the logits, each of shape (networks, batch, width)."""
        h = inputs.expand(len(self.weights[0]), *inputs.shape)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = self.activation(torch.baddbmm(bias, h, weight.mT))
            yield h
        yield torch.baddbmm(self.biases[-1], h, self.weights[-1].mT)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (batch, fan_in) to logits (networks, batch, classes)."""
        *_, logits = self.layers(inputs)
        return logits
