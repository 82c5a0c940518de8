"""Plain fully connected networks whose initialization and activation are arguments.

`PlainNetwork` is for looking at one network's signals, `Ensemble` for training many of them at once, and
`DeepChain` for training one of thousands of equal layers, fully connected or convolutional.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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


class DeepChain(nn.Module):
    """h_l = phi(W_l h_{l-1} + b_l) for l = 1..depth, then a readout that never learns; nothing else.

    shape: of one layer's weight; `(width, width)` for fully connected layers, `(channels, channels, *kernel)`
    with 1 to 3 kernel dimensions, all odd, for convolutions of stride 1 padded with zeros to keep the size.
    readout: `(classes, features)`; the logits are the last layer's outputs, flattened, times its transpose.
    Each weight is filled alone by `weight_init_(tensor, generator=generator)`, all biases `(depth, width)` by
    `bias_init_(tensor)`. The parameters are only two tensors, `weights` `(depth, *shape)` and `biases`, so
    that an optimizer makes one update for all layers, and `weights.grad[l - 1]` is the gradient of layer l.

    Raises: ValueError unless depth is positive and the shape square, of 2 to 5 dimensions, none of them 0,
    with an odd kernel.
    """

    def __init__(
        self,
        depth: int,
        shape: Sequence[int],
        activation: Activation,
        weight_init_: Initializer,
        *,
        readout: Tensor,
        bias_init_: Initializer = zeros_,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"expected at least one layer; got depth {depth}")
        odd = all(size % 2 for size in shape[2:])
        if not 2 <= len(shape) <= 5 or shape[0] != shape[1] or min(shape) < 1 or not odd:
            raise ValueError(
                f"expected a shape (width, width, *kernel), all positive, the kernel odd; got {tuple(shape)}"
            )
        self.activation = activation
        weights, biases = torch.empty(depth, *shape), torch.empty(depth, shape[0])
        for weight in weights:
            weight_init_(weight, generator=generator)
        bias_init_(biases)
        self.weights, self.biases = nn.Parameter(weights), nn.Parameter(biases)
        self.register_buffer("readout", readout)

    def layers(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield h_1, ..., h_depth, shaped as the inputs are: (batch, width) or (batch, channels, *size)."""
        convolve = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)
        dimensions, h = self.weights.ndim - 3, inputs
        affine = partial(convolve[dimensions - 1], padding="same") if dimensions else nn.functional.linear
        # unbind, not weights[l]: each index would add a gradient as large as all layers together.
        for weight, bias in zip(self.weights.unbind(), self.biases.unbind(), strict=True):
            h = self.activation(affine(h, weight, bias))
            yield h

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (batch, width) or (batch, channels, *size) to logits (batch, classes)."""
        (h,) = deque(self.layers(inputs), maxlen=1)  # without gradients, the others need no memory
        return nn.functional.linear(h.flatten(1), self.readout)
