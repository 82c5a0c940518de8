"""Experiments without matrices: what Gaussian layers do to signals and gradients, drawn from its exact law.

Given the layer below, a fresh Gaussian layer gives every unit an independent normal number, so that `width`
numbers, or one chi² number, stand for `width`**2 weights: at any width, and hundreds of times faster. The
chain of one input's profile is `propagation.norm_chain`; here are pairs of inputs, gradients and branches.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from course_utils.activations import Activation
from course_utils.checks import check_name
from course_utils.propagation import numpy_generator


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
    return np.einsum("...i,...i->...", x, y, dtype=float)


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
