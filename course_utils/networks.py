"""Plain fully connected networks whose initialization and activation are arguments.

`PlainNetwork` is for looking at one network's signals, `Ensemble` for training many of them at once, and
`DeepChain` for training one of thousands of equal layers, fully connected or convolutional. `convolve` is for
convolutional networks that are evaluated together.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.activations import Activation
from course_utils.checks import check_arguments
from course_utils.initializers import Rng, zeros_

Initializer = Callable[..., Any]


def _filled(init_: Initializer, generator: Rng, *shape: int, count: int | None = None) -> nn.Parameter:
    """Return a parameter of this shape that `init_` filled; with `count`, so many of them, each alone."""
    parameter = inspect.signature(init_).parameters.get("generator")
    passed = parameter and parameter.default in (None, parameter.empty)  # a partial may have its own
    options = {"generator": generator} if passed else {}
    tensor = torch.full((1 if count is None else count, *shape), math.nan)
    for part in tensor:
        init_(part, **options)
        if part.isnan().any():
            name = getattr(getattr(init_, "func", init_), "__name__", type(init_).__name__)
            raise ValueError(
                f"{name} must fill its tensor in place, as w.normal_() does; of shape {shape} it left "
                f"{part.isnan().sum()} of {part.numel()} entries unfilled, or nan"
            )
    return nn.Parameter(tensor[0] if count is None else tensor)


class _Layered(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (batch, fan_in) to the output of the last of `layers`."""
        # Not a list of all: without gradients, those before the last then need no memory.
        return reduce(lambda _, h: h, self.layers(inputs), inputs)


class PlainNetwork(_Layered):
    """h_l = phi(h_{l-1} @ W_l.T + b_l) for l = 1..depth, the activation after every layer.

    `widths` lists fan-in and fan-outs: depth + 1 numbers. Weights have torch's layout (fan_out, fan_in).
    `weight_init_` and `bias_init_` fill each tensor in place: `init_(tensor, generator=generator)`, or
    `init_(tensor)` if they take none or have their own. Built in float32 on the CPU; `.to(...)` moves it.
    Raises: ValueError for a width that is no integer or not positive, and for an initializer that does not
    fill its tensor with numbers.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: Activation,
        weight_init_: Initializer,
        *,
        bias_init_: Initializer = zeros_,
        generator: Rng = None,
    ) -> None:
        super().__init__()
        check_arguments(width=widths)
        self.activation = activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            self.weights.append(_filled(weight_init_, generator, fan_out, fan_in))
            self.biases.append(_filled(bias_init_, generator, fan_out))

    def layers(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the output of each layer, h_1, ..., h_depth; each has shape (batch, width)."""
        h = inputs
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = self.activation(nn.functional.linear(h, weight, bias))
            yield h


class Ensemble(_Layered):
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
        generator: Rng = None,
    ) -> None:
        super().__init__()
        check_arguments(count=networks, width=widths)
        self.activation = activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        inits = [weight_init_] * (len(widths) - 2) + [output_init_ or weight_init_]
        for init_, (fan_in, fan_out) in zip(inits, pairwise(widths), strict=True):
            self.weights.append(_filled(init_, generator, fan_out, fan_in, count=networks))
            self.biases.append(_filled(bias_init_, generator, 1, fan_out, count=networks))

    def layers(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the output of each layer, the last being the logits; each is (networks, batch, width)."""
        h = inputs.expand(len(self.weights[0]), *inputs.shape)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            # W @ h.mT, not h @ W.mT: so a weight's gradient comes out in the weight's own order.
            h = self.activation(torch.baddbmm(bias.mT, weight, h.mT).mT)
            yield h
        yield torch.baddbmm(self.biases[-1].mT, self.weights[-1], h.mT).mT


class DeepChain(_Layered):
    """h_l = phi(W_l h_{l-1} + b_l) for l = 1..depth, then a readout that never learns; nothing else.

    shape: of one layer's weight; `(width, width)` for fully connected layers, `(channels, channels, *kernel)`
    with 1 to 3 kernel dimensions, all odd, for convolutions of stride 1 padded with zeros to keep the size.
    readout: `(classes, features)`; the logits are the last layer's outputs, flattened, times its transpose.
    Each weight is filled alone by `weight_init_`, all biases together by `bias_init_`, called as by
    `PlainNetwork`. The parameters are only two tensors, `weights` `(depth, *shape)` and `biases`
    `(depth, width)`, so that an optimizer makes one update for all layers, and `weights.grad[l - 1]` is the
    gradient of layer l.
    Raises: ValueError unless depth is an integer >= 0 and the shape square, of 2 to 5 positive integers, with
    an odd kernel; and for an initializer as `PlainNetwork`.
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
        generator: Rng = None,
    ) -> None:
        super().__init__()
        check_arguments(depth=depth, width=shape)
        if not 2 <= len(shape) <= 5 or shape[0] != shape[1] or any(size % 2 == 0 for size in shape[2:]):
            raise ValueError(f"expected a shape (width, width, *kernel), the kernel odd; got {tuple(shape)}")
        self.activation = activation
        self.weights = _filled(weight_init_, generator, *shape, count=depth)
        self.biases = _filled(bias_init_, generator, depth, shape[0])
        self.register_buffer("readout", readout)

    def layers(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the output of each layer, h_1, ..., h_depth, shaped as the inputs are."""
        dimensions, h, affine = self.weights.ndim - 3, inputs, nn.functional.linear
        if dimensions:
            affine = partial(getattr(nn.functional, f"conv{dimensions}d"), padding="same")
        # unbind, not weights[l]: each index would add a gradient as large as all layers together.
        for weight, bias in zip(self.weights.unbind(), self.biases.unbind(), strict=True):
            h = self.activation(affine(h, weight, bias))
            yield h

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (batch, width) or (batch, channels, *size) to logits (batch, classes)."""
        return nn.functional.linear(super().forward(inputs).flatten(1), self.readout)


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve the images of each network with its own kernels, stride 1, padded with zeros to keep the size.

    images: (batch, networks, channels, rows, columns); kernels: (networks, out, channels, height, width).
    Returns: (batch, networks, out, rows, columns).
    Raises: RuntimeError if the channels or the networks differ, from torch.
    """
    networks, out = kernels.shape[:2]
    options = {"padding": "same", "groups": networks}
    together = nn.functional.conv2d(images.flatten(1, 2), kernels.flatten(0, 1), **options)
    return together.unflatten(1, (networks, out))
