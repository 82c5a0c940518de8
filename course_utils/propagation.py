"""Experiments: what signals and gradients do in random networks, measured.

Two ways to the same law. `simulate` draws every weight matrix; `norm_chain` draws only what the matrices do
to one input, which for Gaussian weights is exact at any width and hundreds of times faster.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from course_utils.activations import Activation, linear
from course_utils.checks import check_arguments
from course_utils.networks import Ensemble, Initializer, PlainNetwork

_CHUNK = 500  # networks per batch of the norm chain: their layer stays within a CPU cache


class Profile(NamedTuple):
    """Statistics over the units of each layer: arrays (signals, depth + 1), column 0 being the input.

    A row is one input in one network. `second_moment` is the mean of h**2; it equals the variance only where
    the mean is 0.
    """

    mean: NDArray
    second_moment: NDArray

    @property
    def rms(self) -> NDArray:
        """Root mean square: the square root of the second moment."""
        return np.sqrt(self.second_moment)

    @property
    def std(self) -> NDArray:
        """Standard deviation over the units (population form): sqrt(second moment - mean**2)."""
        return np.sqrt(np.maximum(self.second_moment - self.mean**2, 0))


def _stacked(profiles: Iterable[Profile]) -> Profile:
    """Return one profile with the rows of all `profiles`."""
    return Profile(*map(np.concatenate, zip(*profiles, strict=True)))


def signal_profile(network: PlainNetwork, inputs: Tensor) -> Profile:
    """Run `inputs` (batch, fan_in) forward and return their profile, one row per input.

    Statistics are taken in float64: the square of a float32 as small as 1e-24 would be 0.
    """
    with torch.no_grad():
        layers = [h.double() for h in (inputs, *network.layers(inputs))]
    statistics = [h.mean(dim=1) for h in layers], [h.square().mean(dim=1) for h in layers]
    return Profile(*(torch.stack(columns, dim=1).cpu().numpy() for columns in statistics))


def gradient_second_moments(network: PlainNetwork, inputs: Tensor, output_gradient: Tensor) -> NDArray:
    """Return the mean square of dL/dh_l over the units, shape (batch, depth + 1), last column given.

    `inputs` is (batch, fan_in), `output_gradient` = dL/dh_depth is (batch, fan_out).
    """
    inputs = inputs.detach().requires_grad_()
    layers = [inputs, *network.layers(inputs)]
    gradients = torch.autograd.grad(layers[-1], layers, output_gradient)
    return torch.stack([g.double().square().mean(dim=1) for g in gradients], dim=1).cpu().numpy()


def simulate(
    activation: Activation,
    weight_init_: Initializer,
    widths: Sequence[int],
    *,
    count: int,
    generator: torch.Generator,
) -> Profile:
    """Draw `count` networks, send one N(0, 1) input through each, and return their profile.

    Raises: ValueError unless count is an integer >= 1, and as `PlainNetwork`.
    """
    check_arguments(count=count)
    rows = []
    for _ in range(count):
        network = PlainNetwork(widths, activation, weight_init_, generator=generator)
        rows.append(signal_profile(network, torch.randn(1, widths[0], generator=generator)))
    return _stacked(rows)


def norm_chain(
    activation: Activation, gain: float, depth: int, width: int, *, count: int, generator: torch.Generator
) -> Profile:
    """Return the profile of `count` networks with weights N(0, gain**2 / width) without drawing a matrix.

    Given its input x, a fresh Gaussian layer outputs W x ~ N(0, gain**2 * mean(x**2)) independently in every
    unit. So `width` normal numbers stand for `width`**2 weights, and the law is exact at any width. It is
    that of one input in each network: two inputs of one network share the weights and need the real thing.
    Raises: ValueError unless count and width are integers >= 1, depth one >= 0, and 0 <= gain < inf.
    """
    check_arguments(count=count, width=width, depth=depth, gain=gain)
    if activation is linear:
        return _linear_chain(gain, depth, width, count, generator)
    sizes = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
    return _stacked(_chain(activation, gain, depth, width, size, generator) for size in sizes)


def _chain(
    activation: Activation, gain: float, depth: int, width: int, count: int, generator: torch.Generator
) -> Profile:
    mean, second_moment = torch.empty(2, count, depth + 1, dtype=torch.float64)
    for layer in range(depth + 1):
        # Drawn in float32, which takes a third of the time, for all that follows in float64.
        h = torch.randn(count, width, generator=generator).double()
        if layer:
            h = activation(gain * second_moment[:, layer - 1, None].sqrt() * h)
        mean[:, layer], second_moment[:, layer] = h.mean(dim=1), h.square().mean(dim=1)
    return Profile(mean.numpy(), second_moment.numpy())


def _linear_chain(gain: float, depth: int, width: int, count: int, generator: torch.Generator) -> Profile:
    """Draw, layer by layer, only the mean and the mean square of `width` standard normal numbers.

    The mean is N(0, 1/width); the squared deviations from it sum to an independent chi2 with width - 1
    degrees of freedom (Cochran 1934), here a gamma variate, which exists for width 1 too.
    """
    rng = numpy_generator(generator)
    unit_mean = rng.standard_normal((count, depth + 1)) / np.sqrt(width)
    unit_moment = unit_mean**2 + rng.gamma((width - 1) / 2, 2 / width, unit_mean.shape)
    gains = np.where(np.arange(depth + 1) > 0, gain, 1.0)
    second_moment = np.cumprod(gains**2 * unit_moment, axis=1)
    # The layer's scale is its RMS over that of the unit numbers it was made from.
    return Profile(unit_mean * np.sqrt(second_moment / unit_moment), second_moment)


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """Return a generator of NumPy, which has laws that torch lacks; its seed comes from `generator`."""
    return np.random.default_rng(torch.randint(2**63 - 1, (), generator=generator).item())


def layer_gradients(
    layer: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, matrices: Iterable[Tensor], errors: Tensor
) -> list[Tensor]:
    """Return dL/dz_l, l = 0..depth, where z_0 = `inputs`, z_l = layer(z_(l-1), W_l), dL/dz_depth = `errors`.

    `inputs` and `errors` have one shape, such as (networks, batch, width), and so has each gradient.
    """
    z = [inputs.detach().requires_grad_()]
    for matrix in matrices:
        z.append(layer(z[-1], matrix))
    return list(torch.autograd.grad(z[-1], z, errors))


def matrix_products(
    weight_init_: Initializer, width: int, depth: int, *, count: int, generator: torch.Generator
) -> Tensor:
    """Return the products of the first 1..depth of random matrices, (depth, count, width, width), in float64.

    Each matrix is filled by `weight_init_(tensor, generator=generator)`; there are `count` series of them.
    """
    products = torch.empty(depth, count, width, width, dtype=torch.float64)
    for layer in range(depth):
        for matrix in products[layer]:
            weight_init_(matrix, generator=generator)
        if layer:
            products[layer] = products[layer] @ products[layer - 1]
    return products


def relu_signals(inputs: NDArray, matrices: Iterable[NDArray]) -> NDArray:
    """Return second moments of h_0 = `inputs` and of h_l = relu(W_l h_(l-1)), (networks, depth + 1).

    `inputs` is (networks, width, batch), each of the `matrices` (networks, fan_out, fan_in).
    """
    h = [inputs]
    for matrix in matrices:  # in NumPy, which is ten times faster than torch for a batch of one
        h.append(np.maximum(matrix @ h[-1], 0))
    return np.stack([np.square(x, dtype=float).mean(axis=(1, 2)) for x in h], axis=1)


def unit_logits(network: Ensemble, inputs: Tensor) -> Tensor:
    """Return logits (networks, batch, classes) for images that reach the last layer with mean square 1.

    The last hidden layer of each of the `inputs` (batch, fan_in) is scaled to that, so that for a last layer
    of gain 1 the logits of one image are independent N(0, 1) over networks, whatever the layers before.
    """
    with torch.no_grad():
        *_, hidden, _ = network.layers(inputs)
        hidden = hidden / hidden.square().mean(dim=-1, keepdim=True).sqrt()
        return hidden @ network.weights[-1].mT


def class_losses(logits: Tensor, biases: Tensor) -> Tensor:
    """Return the mean cross-entropy of each class's images, (settings, networks, classes), in nats.

    `logits` is (networks, classes, images, classes), images sorted by class; each row of the `biases`
    (settings, classes) is one setting of the output biases.
    """
    own = logits.diagonal(dim1=1, dim2=3).mean(dim=1) + biases[:, None]
    sums = (logits.exp() @ biases.exp().mT).log().mean(dim=2)  # (networks, classes, settings)
    return sums.movedim(2, 0) - own


def relu_losses(weights: Sequence[Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy (networks,) in nats of ReLU networks without biases.

    A layer's `weights` are one tensor (networks, fan_out, fan_in).
    """
    *hidden, last = weights
    h = inputs
    for weight in hidden:
        h = (h @ weight.mT).relu()
    logits = h @ last.mT
    target = labels.expand(logits.shape[:-1])
    return torch.nn.functional.cross_entropy(logits.mT, target, reduction="none").mean(dim=1)


def guess_gradients(network: Ensemble, inputs: Tensor, labels: Tensor) -> list[Tensor]:
    """Return the loss's gradient for each weight if every guess were uniform, which it is for tiny logits.

    One tensor (networks, fan_out, fan_in) a layer; the loss is the mean cross-entropy over the images.
    """
    logits = network(inputs)
    classes = logits.shape[-1]
    error = 1 / classes - torch.nn.functional.one_hot(labels, classes).to(logits)
    return list(torch.autograd.grad(logits, list(network.weights), error.expand_as(logits) / len(labels)))
