"""Plain fully connected networks whose initialization and activation are arguments.

`PlainNetwork` is for looking at one network's signals, `Ensemble` for training many of them at once, and
`DeepChain` for training one of thousands of equal layers, fully connected or convolutional.
"""

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Generator, Tensor, nn

from course_utils.activations import Activation
from course_utils.initializers import zeros_

Initializer = Callable[..., Any]


def _are_sizes(*sizes: object) -> bool:
    """Return whether all are integers of at least 1."""
    return all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 1 for n in sizes)


def _check_widths(widths: Sequence[int]) -> None:
    if len(widths) < 2 or not _are_sizes(*widths):
        raise ValueError(f"widths needs integers, at least fan-in and fan-out, all positive; got {widths}")


def _takes_generator(init_: Initializer) -> bool:
    """Return whether to pass a generator: to what takes one and has none of its own, as a partial may."""
    parameters = inspect.signature(init_).parameters
    if "generator" in parameters:
        return parameters["generator"].default in (None, inspect.Parameter.empty)
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _filler(init_: Initializer, generator: Generator | None) -> Callable[..., Tensor]:
    """Return a function of a shape that makes a tensor and has `init_` fill it in place."""
    fill_ = partial(init_, generator=generator) if _takes_generator(init_) else init_
    name = getattr(getattr(init_, "func", init_), "__name__", type(init_).__name__)

    def filled(*shape: int, count: int | None = None) -> Tensor:
        """Return a tensor of this shape; with `count`, (count, *shape), each part filled alone."""
        tensor = torch.full((1 if count is None else count, *shape), math.nan)
        for part in tensor:
            fill_(part)
            if part.isnan().any():
                raise ValueError(
                    f"{name} must fill its tensor in place, as w.normal_() does; of shape {shape} it left "
                    f"{part.isnan().sum()} of {part.numel()} entries unfilled, or nan"
                )
        return tensor[0] if count is None else tensor

    return filled


def _last(layers: Iterator[Tensor]) -> Tensor:
    """Return the last one; without gradients, the others then need no memory."""
    (h,) = deque(layers, maxlen=1)
    return h


class PlainNetwork(nn.Module):
    """h_l = phi(h_{l-1} @ W_l.T + b_l) for l = 1..depth, the activation after every layer.

    `widths` lists fan-in and fan-outs: depth + 1 numbers. Weights have torch's layout (fan_out, fan_in).
    `weight_init_` and `bias_init_` fill each tensor in place: `init_(tensor, generator=generator)`, or
    `init_(tensor)` if they take none or have their own. Built in float32 on the CPU; `.to(...)` moves it.
    Raises: ValueError for fewer than two widths, one that is no integer or not positive, and for an
    initializer that does not fill its tensor with numbers.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: Activation,
        weight_init_: Initializer,
        *,
        bias_init_: Initializer = zeros_,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        _check_widths(widths)
        self.activation = activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        weight, bias = _filler(weight_init_, generator), _filler(bias_init_, generator)
        for fan_in, fan_out in pairwise(widths):
            self.weights.append(weight(fan_out, fan_in))
            self.biases.append(bias(fan_out))

    def layers(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the output of each layer, h_1, ..., h_depth; each has shape (batch, width).

        Raises: ValueError for inputs of another shape than (batch, fan_in).
        """
        fan_in, h = self.weights[0].shape[1], inputs
        if inputs.ndim != 2 or inputs.shape[1] != fan_in:
            raise ValueError(f"expected inputs of shape (batch, {fan_in}); got {tuple(inputs.shape)}")
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = self.activation(nn.functional.linear(h, weight, bias))
            yield h

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (batch, fan_in) to the last layer's outputs (batch, fan_out)."""
        return _last(self.layers(inputs))


class Ensemble(nn.Module):
    """`networks` classifiers of equal shape, independent of one another and evaluated together.

    h_l = phi(h_{l-1} @ W_l.T + b_l) for every layer but the last, which returns logits. Each matrix of each
    network (fan_out, fan_in) is filled alone by `weight_init_`, the last one by `output_init_` (if None, like
    the others), each bias by `bias_init_`, all called as by `PlainNetwork`. A layer's weights lie in one
    tensor (networks, fan_out, fan_in), its biases in one (networks, 1, fan_out). The gradient of the summed
    losses gives each network its own, so that an element-wise optimizer (SGD, Adam, RMSprop; not LBFGS)
    trains each as if it were alone.
    Raises: ValueError for fewer than one network, and as `PlainNetwork`.
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
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        _check_widths(widths)
        if not _are_sizes(networks):
            raise ValueError(f"networks must be an integer of at least 1; got {networks}")
        self.activation = activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        weight, bias = _filler(weight_init_, generator), _filler(bias_init_, generator)
        fills = [weight] * (len(widths) - 2) + [_filler(output_init_ or weight_init_, generator)]
        for fill, (fan_in, fan_out) in zip(fills, pairwise(widths), strict=True):
            self.weights.append(fill(fan_out, fan_in, count=networks))
            self.biases.append(bias(1, fan_out, count=networks))

    def layers(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the output of each layer, the last being the logits; each is (networks, batch, width)."""
        h = inputs.expand(len(self.weights[0]), *inputs.shape)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = self.activation(torch.baddbmm(bias, h, weight.mT))
            yield h
        yield torch.baddbmm(self.biases[-1], h, self.weights[-1].mT)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (batch, fan_in) to logits (networks, batch, classes)."""
        return _last(self.layers(inputs))


class DeepChain(nn.Module):
    """h_l = phi(W_l h_{l-1} + b_l) for l = 1..depth, then a readout that never learns; nothing else.

    shape: of one layer's weight; `(width, width)` for fully connected layers, `(channels, channels, *kernel)`
    with 1 to 3 kernel dimensions, all odd, for convolutions of stride 1 padded with zeros to keep the size.
    readout: `(classes, features)`; the logits are the last layer's outputs, flattened, times its transpose.
    Each weight is filled alone by `weight_init_`, all biases together by `bias_init_`, called as by
    `PlainNetwork`. The parameters are only two tensors, `weights` `(depth, *shape)` and `biases`
    `(depth, width)`, so that an optimizer makes one update for all layers, and `weights.grad[l - 1]` is the
    gradient of layer l.
    Raises: ValueError unless depth is a positive integer and the shape square, of 2 to 5 positive integers,
    with an odd kernel; and for an initializer as `PlainNetwork`.
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
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if not _are_sizes(depth):
            raise ValueError(f"expected at least one layer; got depth {depth}")
        square = 2 <= len(shape) <= 5 and _are_sizes(*shape) and shape[0] == shape[1]
        if not square or any(size % 2 == 0 for size in shape[2:]):
            wanted = "a shape (width, width, *kernel), all positive, the kernel odd"
            raise ValueError(f"expected {wanted}; got {tuple(shape)}")
        self.activation = activation
        self.weights = nn.Parameter(_filler(weight_init_, generator)(*shape, count=depth))
        self.biases = nn.Parameter(_filler(bias_init_, generator)(depth, shape[0]))
        self.register_buffer("readout", readout)

    def layers(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the output of each layer, h_1, ..., h_depth, shaped as the inputs are."""
        convolve = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)
        dimensions, h = self.weights.ndim - 3, inputs
        affine = partial(convolve[dimensions - 1], padding="same") if dimensions else nn.functional.linear
        # unbind, not weights[l]: each index would add a gradient as large as all layers together.
        for weight, bias in zip(self.weights.unbind(), self.biases.unbind(), strict=True):
            h = self.activation(affine(h, weight, bias))
            yield h

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (batch, width) or (batch, channels, *size) to logits (batch, classes)."""
        return nn.functional.linear(_last(self.layers(inputs)).flatten(1), self.readout)
