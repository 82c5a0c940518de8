"""Experiments: what signals and gradients do in random networks, measured.

Two ways to the same law. `simulate` draws every weight matrix; a chain draws only what the matrices do. Given
the layer below, a fresh Gaussian layer gives every unit an independent normal number, so that `width`
numbers, or one chi² number, stand for `width`**2 weights: at any width, and hundreds of times faster.
`norm_chain` is that of one input; at the end are chains of pairs of inputs, gradients and branches.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from course_utils.activations import Activation, linear
from course_utils.checks import check_arguments, check_name
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
    networks = (PlainNetwork(widths, activation, weight_init_, generator=generator) for _ in range(count))
    return _stacked(signal_profile(net, torch.randn(1, widths[0], generator=generator)) for net in networks)


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

    A mean of N(0, 1/width), and squared deviations of chi2 with width - 1 (Cochran 1934): a gamma variate.
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


def _on_and_off(width: ArrayLike, shape: tuple, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Return the sums of squares of the positive and of the negative ones among `width` normal numbers."""
    positive = rng.binomial(width, 0.5, shape)  # the sums have chi² laws of so many degrees, and of the rest
    return 2 * rng.standard_gamma(positive / 2), 2 * rng.standard_gamma((width - positive) / 2)


def leaky_chain(
    slope: float, widths: Sequence[int], variances: ArrayLike, *, count: int, generator: torch.Generator
) -> NDArray:
    """Return second moments of h_l, (count, depth + 1), of networks of leaky ReLUs (`slope` 0: ReLU).

    Each network has one N(0, 1) input, layers of `widths` (depth + 1,) and Gaussian weights of `variances`
    (depth,). Given the layer below, z is N(0, Var(w) |h|²) in every unit, so that two chi² numbers stand for
    a layer: the exact law, drawn without a matrix.
    """
    widths, variances = np.asarray(widths), np.asarray(variances)
    on, off = _on_and_off(widths, (count, len(widths)), numpy_generator(generator))
    squares = on + slope**2 * off
    squares[:, 0] = on[:, 0] + off[:, 0]  # the input passes no activation
    return np.cumprod(squares / widths * np.append(1.0, variances * widths[:-1]), axis=1)


def relu_gradient_chain(
    widths: Sequence[int], variances: ArrayLike, *, count: int, generator: torch.Generator
) -> NDArray:
    """Return second moments of dL/dh_l, (count, depth + 1), of ReLU networks with an N(0, 1) error on top.

    `widths` (depth + 1,) and `variances` (depth,) as for `leaky_chain`, of which it is independent. A normal
    error stays normal on its way down: the mask lets K ~ Binomial(n, 1/2) of its entries through, and the
    transposed weights turn their sum of squares into the next variance. Exact but for networks with a layer
    that is off altogether, of which there are 2**-n.
    """
    widths, variances = np.asarray(widths), np.asarray(variances)
    on, off = _on_and_off(widths, (count, len(widths)), numpy_generator(generator))
    growth = np.cumprod((variances * on[:, 1:])[:, ::-1], axis=1)[:, ::-1]
    return np.hstack([growth, np.ones((count, 1))]) * (on + off) / widths


def pair_chain(
    activation: Activation, gain: float, cosines: ArrayLike, normals: NDArray, *, bias_std: float = 0.0
) -> NDArray:
    """Return correlations of two inputs' pre-activations in layers 1..depth, (pairs, networks, depth).

    `cosines` (pairs,) are those of the inputs, of second moment 1 each. Given the layer below, a unit's two
    pre-activations are jointly normal, so that two numbers stand for a row of weights and its bias, at any
    width: the N(0, 1) `normals` (depth, 2, networks, width), which all pairs share. Each pair has its exact
    law. `gain` and `bias_std` are standard deviations.
    """
    count, width = normals.shape[2:]
    first, second = np.ones((count, 1)), np.ones((len(cosines), count, 1))
    product, correlations = np.reshape(cosines, (-1, 1, 1)) * first, []
    for u, v in normals:
        q1, q2, q12 = (gain**2 * moment + bias_std**2 for moment in (first, second, product))
        c = np.minimum(q12 / np.sqrt(q1 * q2), 1)
        correlations.append(c[..., 0])
        along, across = np.float32(np.sqrt(q2) * c), np.float32(np.sqrt(q2 * (1 - c**2)))
        z = np.concatenate([(np.float32(np.sqrt(q1)) * u)[None], along * u + across * v])
        h = activation(torch.from_numpy(z)).numpy()
        first, second, product = (
            (_dot(x, y) / width)[..., None] for x, y in ((h[0], h[0]), (h[1:], h[1:]), (h[0], h[1:]))
        )
    return np.stack(correlations, axis=-1)


def gradient_chain(
    activation: Activation, gains: tuple[float, float], normals: NDArray
) -> tuple[NDArray, NDArray]:
    """Return second moments of z_l, and of dL/dz_l over that of the last layer, l = 1..depth.

    Both are (networks, depth), from N(0, 1) `normals` (depth, 2, networks, width): the exact law, without
    matrices. `gains` are the standard deviations of the first layer's weights and of all others', times
    sqrt(width); inputs have second moment 1. Forward, W h is normal with variance gain² mean(h²). Backward,
    what is known of W is W h = z, so that W^T u is a fresh normal vector but for its part along h, which is
    h (z u) / h².
    """
    (first, gain), (depth, _, count, width) = gains, normals.shape
    z, fresh = normals.swapaxes(0, 1)
    z = np.float32(first) * z
    h, squares = np.empty_like(z), np.empty((depth, count))
    for layer in range(depth - 1):
        h[layer] = activation(torch.from_numpy(z[layer])).numpy()
        squares[layer] = _dot(h[layer], h[layer])
        z[layer + 1] *= gain / first * np.sqrt(squares[layer] / width)[:, None]
    slopes = activation.derivative(torch.from_numpy(z)).numpy()
    g, gradients = fresh[-1], [_dot(fresh[-1], fresh[-1])]
    for layer in range(depth - 2, -1, -1):
        back = np.float32(gain * np.sqrt(gradients[-1] / width))[:, None] * fresh[layer]
        known = (_dot(z[layer + 1], g) - _dot(back, h[layer])) / squares[layer]
        g = slopes[layer] * (back + h[layer] * np.float32(known)[:, None])
        gradients.append(_dot(g, g))
    return _dot(z, z).T / width, (np.array(gradients[::-1]) / gradients[0]).T


def _dot(x: NDArray, y: NDArray) -> NDArray:
    """Return x · y of each network in float64, in which squares of vanishing signals remain numbers."""
    return np.vecdot(x.astype(float), y.astype(float))


def log_lengths(weights: str, width: int, depth: int, *, count: int, generator: torch.Generator) -> NDArray:
    """Return ln(|h_l| / |h_0|) of linear networks of gain 1, l = 0..depth, shape (count, depth + 1).

    The exact law. "Gaussian": a layer multiplies the squared length by chi² / n, n = `width` degrees of
    freedom. "flattened orthogonal", a 3 × 3 kernel of n channels with orthonormal rows on an image that is
    constant in space: 9 times the share that n of 9 n coordinates have of a random unit vector, a Beta
    variable. "delta-orthogonal": 1.
    Raises: ValueError for other weights.
    """
    rng, shape = numpy_generator(generator), (count, depth)
    growth = {
        "Gaussian": lambda: rng.standard_gamma(width / 2, shape) * (2 / width),
        "flattened orthogonal": lambda: 9 * rng.beta(width / 2, 4 * width, shape),
        "delta-orthogonal": lambda: np.ones(shape),
    }
    draw = growth[check_name("weights", weights, growth)]
    return np.pad(np.cumsum(np.log(draw()) / 2, axis=1), ((0, 0), (1, 0)))


def branch_draws(branches: int, width: int, *, count: int, generator: torch.Generator) -> tuple[NDArray, ...]:
    """Return what decides about each residual branch of `width` units, five arrays (branches, count).

    The branch W2 relu(W1 h), Var(w) = 1/n and 2/n, maps an h of mean square 1 to a normal vector of variance
    A = 2 chi²_K / n, K ~ Binomial(n, 1/2) units being on. Of this vector the standard deviation over sqrt(n),
    the lengths along two directions and along (1, ..., 1), and the square of all the rest matter.
    """
    rng, shape = numpy_generator(generator), (branches, count)
    on, _ = _on_and_off(width, shape, rng)
    rest = 2 * rng.standard_gamma((width - 3) / 2, shape)
    return np.sqrt(2 * on) / width, *rng.standard_normal((3, *shape)), rest


def residual_stream(scale: float, norm: str, draws: Sequence[NDArray]) -> tuple[NDArray, NDArray]:
    """Return m_k and cos(x_0, x_k)² of the stream after k = 0..branches, each (count, branches + 1).

    x_(k+1) = x_k + scale × branch(x_k), of the exact law, with `branch_draws`. norm: "no norm"; "pre-norm",
    a layer norm before each branch; "post-norm", one after each sum.
    Raises: ValueError for another norm.
    """
    check_name("norm", norm, ("no norm", "pre-norm", "post-norm"))
    along = np.ones((len(draws[0]) + 1, draws[0].shape[1]))  # length of x_k along x_0, over sqrt(n)
    across = np.zeros_like(along)
    for k, (size, u, v, mean, rest) in enumerate(zip(*draws, strict=True)):
        f = scale * size * (np.hypot(along[k], across[k]) if norm == "no norm" else 1.0)
        # Layer norm removes the direction (1, ..., 1) from what is added.
        others = rest if norm == "post-norm" else rest + mean**2
        along[k + 1] = along[k] + f * u
        across[k + 1] = np.hypot(across[k] + f * v, f * np.sqrt(others))
        if norm == "post-norm":
            length = np.hypot(along[k + 1], across[k + 1])
            along[k + 1], across[k + 1] = along[k + 1] / length, across[k + 1] / length
    m = along**2 + across**2
    return m.T, (along**2 / m).T
