"""What the demos of notebooks 12 to 15 draw: norms, branches, pruned weights, and gains for many activations.

Each `*_figure` function turns the values of a demo's controls into a figure and a sentence with the predicted
and the measured numbers; it needs no browser.
"""

import math
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from course_utils import activations, comparison, mean_field, plotting
from course_utils.activations import Activation
from course_utils.demos import canvas


def _shade(ax: Axes, factor: float, end: float = 0.99) -> None:
    """Shade 1 / factor to factor and name it: the name ends at the share `end` of the axis."""
    ax.axhspan(1 / factor, factor, color=plotting.GREY, alpha=0.12, linewidth=0)
    text, place = f"within a factor of {factor:g}", ax.get_yaxis_transform()
    ax.text(end, factor, text, ha="right", va="bottom", color=plotting.GREY, transform=place)


def _power(log10: float) -> str:
    """Return 10**log10 as text: three digits, or a power of ten where that is easier to read."""
    return f"{10**log10:.3g}" if abs(log10) < 3 else f"10^{log10:.1f}"


# Notebook 12: the gradient of normalized layers.

NORM_NETWORKS, NORM_WIDTH, MOST_LAYERS, MOST_IMAGES = 16, 64, 50, 32


def _over_the_batch(z: Tensor) -> Tensor:
    return layer_norm(z, z.shape[2:], eps=0.0)


def _over_the_units(z: Tensor) -> Tensor:
    return layer_norm(z.mT, z.shape[1:2], eps=0.0).mT


# What each layer does to its pre-activations (networks, units, images), given a matrix with Var(w) = 1/n.
NORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "batch norm": lambda z, W: W @ torch.relu(_over_the_batch(z)),
    "batch norm in branches": lambda z, W: z + math.sqrt(2) * W @ torch.relu(_over_the_batch(z)),
    "layer norm after ReLU": lambda z, W: W @ _over_the_units(torch.relu(z)),
    "layer norm before ReLU": lambda z, W: W @ torch.relu(_over_the_units(z)),
    "none, He's weights": lambda z, W: math.sqrt(2) * W @ torch.relu(z),
}


def _batch_norm_growth(batch: int) -> tuple[float, float]:
    """Return the factor of a batch norm and ReLU layer on squared gradients, and the variance 1 - k it keeps.

    Both for layers wide compared with the batch of at least 4 images.
    """
    rho = -1 / (batch - 1)
    k, both_on = float(mean_field.relu_cosine_map(rho)), 1 / 4 + math.asin(rho) / (2 * math.pi)
    r = batch / ((batch - 3) * (1 - k)) * (1 - (2 - 2 * both_on - k) / batch)
    return r, 1 - k


def _norm_factors(norm: str, batch: int, depth: int) -> NDArray:
    """Return the predicted factor of each of `depth` layers on squared gradients."""
    growth, kept = _batch_norm_growth(batch)
    if norm == "batch norm in branches":
        return 1 + growth * kept / (1 + np.arange(1, depth + 1) * kept)
    large_batch = math.pi / (math.pi - 1)
    return np.full(depth, {"batch norm": growth, "layer norm after ReLU": large_batch}.get(norm, 1.0))


@lru_cache(maxsize=1)
def _norm_draws() -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, errors and matrices of the deepest network: each setting takes its part of them."""
    generator = torch.Generator().manual_seed(0)
    images = (NORM_NETWORKS, NORM_WIDTH, MOST_IMAGES)
    matrices = (MOST_LAYERS + 1, NORM_NETWORKS, NORM_WIDTH, NORM_WIDTH)
    x, errors, W = (torch.randn(*shape, generator=generator) for shape in (images, images, matrices))
    return x, errors, W / math.sqrt(NORM_WIDTH)


def _norm_gradients(norm: str, batch: int, depth: int) -> NDArray:
    """Return the RMS of the gradient by layer over that of the last, shape (networks, depth + 1).

    The layer that turns the inputs into pre-activations is left out: nothing has normalized them.
    """
    x, errors, matrices = _norm_draws()
    z = [x[..., :batch].contiguous().requires_grad_()]
    for W in matrices[: depth + 1]:
        z.append(NORMS[norm](z[-1], W))
    errors = errors[..., :batch] - errors[..., :batch].mean(dim=2, keepdim=True)
    gradients = torch.autograd.grad(z[-1], z[1:], errors)
    squares = torch.stack([g.square().mean(dim=(1, 2)) for g in gradients], dim=1).double().numpy()
    return np.sqrt(squares / squares[:, -1:])


def norm_figure(norm: str = "batch norm", batch: int = 8, depth: int = 50) -> tuple[Figure, str]:
    """Draw the RMS of the gradient by layer over that of the last, for layers with a norm and a ReLU.

    `batch` counts images. Predicted at infinite width, dotted for batch norm with infinitely many images.
    """
    factors = _norm_factors(norm, batch, depth)
    theory = np.sqrt(np.append(np.cumprod(factors[::-1])[::-1], 1.0))
    measured = _norm_gradients(norm, batch, depth)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_signal(measured, theory, ax=ax)
    _shade(ax, 100)
    canvas.set_layers(ax, depth)
    if norm == "batch norm":
        ax.plot((math.pi / (math.pi - 1)) ** (np.arange(depth, -1, -1) / 2), "k:", linewidth=1.5)
        ax.text(0.02, 0.05, "dotted: infinitely many images", transform=ax.transAxes)
    canvas.set_decades(ax, 0.05, max(1e3, 20 * theory[0]))
    ax.set(
        ylabel="RMS of gradient / last layer's",
        title=f"Predicted over {depth} layers: the gradient is multiplied by {_power(math.log10(theory[0]))}",
    )
    return figure, _norm_sentence(norm, batch, theory, measured[:, 0])


def _norm_sentence(norm: str, batch: int, theory: NDArray, first: NDArray) -> str:
    # Two decimals: float32 rounding, which grows with the gradient, differs between processors in the third.
    depth, log = len(theory) - 1, comparison.mean_of(np.log10(first))
    images = f" with {batch} images" if norm.startswith("batch") else ""
    near = int((theory <= 100).sum()) - 1
    layers = "all layers" if near == depth else f"the last {near} layers"
    return (
        f"{norm[0].upper()}{norm[1:]}{images}, {depth} layers: log10 of the gradient's RMS in the first over "
        f"that in the last is predicted to be {math.log10(theory[0]):.2f} at infinite width, and is "
        f"{log:z.2f} in {NORM_NETWORKS} networks of width {NORM_WIDTH}. "
        f"Predicted to be within a factor of 100: {layers}."
    )


# Notebook 13: the stream of a residual network.

STREAM_NETWORKS, MOST_BRANCHES = 300, 192
STREAMS = ("no norm", "pre-norm", "post-norm")


@lru_cache(maxsize=8)
def _branch_draws(width: int) -> tuple[NDArray, ...]:
    """Return what decides about each branch, arrays (branches, networks), for `width` units.

    The branch W2 relu(W1 h), Var(w) = 1/n and 2/n, maps an h of mean square 1 to a normal vector of variance
    A = 2 chi2_K / n, K ~ Binomial(n, 1/2) units being on. Of this vector the length along two directions,
    along (1, ..., 1), and the square of all the rest matter; all are independent.
    """
    rng = np.random.default_rng(0)
    shape = (MOST_BRANCHES, STREAM_NETWORKS)
    variance = 4 * rng.standard_gamma(rng.binomial(width, 0.5, shape) / 2) / width
    normal = rng.standard_normal((3, *shape))
    return np.sqrt(variance / width), *normal, 2 * rng.standard_gamma((width - 3) / 2, shape)


def _streams(scale: float, branches: int, norm: str, width: int) -> tuple[NDArray, NDArray]:
    """Return m_k and cos(x_0, x_k)**2 for k = 0..branches, each (networks, branches + 1): the exact law."""
    along = np.ones((branches + 1, STREAM_NETWORKS))  # length of x_k along x_0, over sqrt(n)
    across = np.zeros_like(along)
    for k, (size, u, v, mean, rest) in enumerate(zip(*_branch_draws(width), strict=True)):
        if k == branches:
            break
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


def _predicted_streams(scale: float, branches: int, norm: str, width: int) -> tuple[NDArray, NDArray]:
    """Return E m_k and the share of x_0 in x_k, in squares; even unrelated directions have 1/n in common."""
    k = np.arange(branches + 1)
    grown = 1 + scale**2 * k if norm == "pre-norm" else (1 + scale**2) ** k
    share = 1 / grown + (1 - 1 / grown) / (width - (norm == "post-norm"))
    return (np.ones(branches + 1) if norm == "post-norm" else grown), share


def stream_figure(
    scale: float = 1.0, blocks: int = 48, norm: str = "no norm", width: int = 512
) -> tuple[Figure, str]:
    """Draw the second moment of a residual stream, and the share of its input in it, by branch (two a block).

    `scale` is the factor on every branch.
    """
    branches = 2 * blocks
    moments, shares = _streams(scale, branches, norm, width)
    theory, share_theory = _predicted_streams(scale, branches, norm, width)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_signal(moments, theory, ax=ax)
    # Means, because unrelated directions have a skewed share in common.
    k, every = np.arange(branches + 1), max(1, (branches + 1) // 12)
    style = {"every": every, "color": plotting.ORANGE, "marker": "s"}
    plotting.plot_samples(k, shares, ax=ax, center=np.mean, **style)
    ax.plot(k, share_theory, "k--", linewidth=1.5)
    _shade(ax, 10, end=0.48)  # beside, not on, the line of a stream that leaves the band
    canvas.set_layers(ax, branches)
    ax.text(0.02, 0.92, "● stream (mₖ)", color=plotting.BLUE, transform=ax.transAxes)
    ax.text(0.02, 0.85, "■ share of its input", color=plotting.ORANGE, transform=ax.transAxes)
    canvas.set_decades(ax, min(1e-2, share_theory[-1] / 30), max(1e3, 10 * theory[-1]))
    ax.set(
        xlabel="branch (k)",
        ylabel="second moment, and share",
        title=f"{blocks} blocks, predicted: stream {_power(math.log10(theory[-1]))}, "
        f"share of its input {share_theory[-1]:.2g}",
    )
    return figure, _stream_sentence(norm, theory, moments, share_theory, shares)


def _stream_sentence(
    norm: str, theory: NDArray, moments: NDArray, share_theory: NDArray, shares: NDArray
) -> str:
    log, share = comparison.median_of(np.log10(moments[:, -1])), comparison.mean_of(shares[:, -1])
    stream = f"log10 of its second moment is predicted to be {math.log10(theory[-1]):.3f}; the median of "
    stream += f"{STREAM_NETWORKS} networks is {log}"
    size_kept, input_kept = theory[-1] <= 10, share_theory[-1] >= 0.1
    verdict = {
        (True, True): "both",
        (True, False): "the stream only",
        (False, True): "its input's share only",
        (False, False): "neither",
    }[size_kept, input_kept]
    return (
        f"The stream after {len(theory) - 1} branches: "
        f"{'the norm sets its second moment to 1' if norm == 'post-norm' else stream}. Share of its input: "
        f"predicted {share_theory[-1]:.3g}, measured mean {share}. Predicted to "
        f"be within a factor of ten: {verdict}."
    )


# Notebook 14: what pruning leaves of the signal.

PRUNED_NETWORKS, PRUNED_WIDTH, PRUNED_LAYERS = 50, 128, 10
PRUNINGS = ("the smallest", "at random")


@lru_cache(maxsize=2)
def _pruning_draws(kind: str) -> NDArray:
    """Return one table (layers, networks, n, n): standard normal "weights", or "dice", uniform in (0, 1)."""
    rng = np.random.default_rng([0, kind == "dice"])
    draw = rng.random if kind == "dice" else rng.standard_normal
    return draw((PRUNED_LAYERS, PRUNED_NETWORKS, PRUNED_WIDTH, PRUNED_WIDTH), dtype=np.float32)


def _pruning_law(removed: str, kept: float) -> tuple[float, float, float]:
    """Return where |w| is cut, what remains of E w**2, and the kurtosis of what remains, for w ~ N(0, 1).

    The zeros count; where weights are removed at random, nothing is cut.
    """
    if removed == "at random":
        return 0.0, kept, 3 / kept
    from scipy.special import ndtri

    cut = max(0.0, -float(ndtri(kept / 2)))
    density = math.exp(-(cut**2) / 2) / math.sqrt(2 * math.pi)
    second, fourth = kept + 2 * cut * density, 3 * kept + 2 * (cut**3 + 3 * cut) * density
    return cut, second, fourth / second**2


def _pruned_signals(removed: str, kept: float) -> NDArray:
    """Return the second moment by layer of He networks with a share `kept` of their weights.

    Shape (networks, layers + 1), from matrices.
    """
    cut, *_ = _pruning_law(removed, kept)
    rng = np.random.default_rng(1)
    h = rng.standard_normal((PRUNED_NETWORKS, PRUNED_WIDTH, 1), dtype=np.float32)
    moments = [np.mean(np.square(h, dtype=float), axis=(1, 2))]
    for layer, W in enumerate(_pruning_draws("weights")):
        mask = np.abs(W) > cut if removed == "the smallest" else _pruning_draws("dice")[layer] < kept
        h = np.maximum(math.sqrt(2 / PRUNED_WIDTH) * np.matmul(W * mask, h), 0)
        moments.append(np.mean(np.square(h, dtype=float), axis=(1, 2)))
    return np.array(moments).T


def _pruning_spread(kurtosis: float) -> NDArray | None:
    """Return Var ln m_l by layer to first order in 1/n for weights of this kurtosis, None beyond the pole.

    The kurtosis of a layer's outputs follows k' = 6 + 2 (kurtosis - 3) k / n, and a layer adds (k' - 1) / n:
    as ln(1 + ...), so that it stays a variance of logarithms where it is large.
    """
    slope = 2 * (kurtosis - 3) / PRUNED_WIDTH
    if slope >= 1:
        return None
    outputs, steps = 3.0, [2 / PRUNED_WIDTH]
    for _ in range(PRUNED_LAYERS):
        outputs = 6 + slope * outputs
        steps.append((outputs - 1) / PRUNED_WIDTH)
    return np.cumsum(np.log1p(steps))


def pruning_figure(
    removed: str = "the smallest", kept: float = 0.1, others: str = "as they are"
) -> tuple[Figure, str]:
    """Draw the second moment by layer of ReLU networks that keep a share `kept` of their He weights.

    If the `others`, those that remain, are "rescaled", their variance makes up for what is gone.
    """
    _, factor, kurtosis = _pruning_law(removed, kept)
    layers, growth = np.arange(PRUNED_LAYERS + 1), 1.0 if others == "rescaled" else factor
    moments = _pruned_signals(removed, kept) * (growth / factor) ** layers
    theory, variance = growth**layers, _pruning_spread(kurtosis)
    figure, (ax,) = canvas.new_figure()
    low, high = np.percentile(moments, [2.5, 97.5], axis=0)
    ax.fill_between(layers, low, high, color=plotting.BLUE, alpha=0.2, linewidth=0)
    errors = 2 * moments.std(axis=0, ddof=1) / math.sqrt(PRUNED_NETWORKS)
    means = moments.mean(axis=0)
    # A bar down to 0 has no place on a logarithmic axis.
    downwards = np.minimum(errors, 0.9 * means)
    ax.errorbar(layers, means, [downwards, errors], fmt="o", color=plotting.BLUE)
    ax.plot(layers, theory, "k--")
    if variance is not None:
        for k in (-1.96, 1.96):
            ax.plot(layers, theory * np.exp(k * np.sqrt(variance) - variance / 2), "k:")
    canvas.set_decades(ax, min(0.02, theory[-1] / 30), max(50, theory[-1] ** -0.2))
    canvas.set_layers(ax, PRUNED_LAYERS)
    _shade(ax, 10)
    ax.set(
        xlabel="layer (l)",
        ylabel="second moment (m)",
        title=f"{100 * kept:.3g} % of the weights, {kept * PRUNED_WIDTH:.3g} links a unit: "
        f"× {growth:.3g} a layer",
    )
    return figure, _pruning_sentence(theory[-1], variance, moments[:, -1])


def _pruning_sentence(theory: float, variance: NDArray | None, last: NDArray) -> str:
    mean, spread = comparison.mean_of(last / theory), comparison.std_of(np.log(last))
    if variance is None:
        noise = "not predicted, for with so few links the noise has passed its pole;"
    else:
        noise = f"predicted {math.sqrt(variance[-1]):.2f} (95 % dotted),"
    return (
        f"Predicted mean of m after {PRUNED_LAYERS} layers: {theory:.3g}. "
        f"{PRUNED_NETWORKS} networks of width {PRUNED_WIDTH} have {mean} times that. "
        f"Standard deviation of ln m over networks: {noise} measured {spread}."
    )


# Notebook 15: a gain for any activation.

GAIN_NETWORKS, DEEPEST, PROMISE = 50, 50, 30.0
GAIN_WIDTHS = (32, 64, 128, 256)
ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    "ReLU": lambda: activations.relu,
    "leaky ReLU, a = 0.2": lambda: activations.leaky_relu(0.2),
    "ELU": lambda: activations.from_function(nn.functional.elu),
    "SELU": lambda: activations.selu,
    "GELU": lambda: activations.gelu,
    "SiLU": lambda: activations.silu,
    "Mish": lambda: activations.from_function(nn.functional.mish),
    "tanh": lambda: activations.tanh,
    "softsign": lambda: activations.softsign,
    "sigmoid": lambda: activations.sigmoid,
}
FIXED_GAINS = {
    "torch's default: 1/√3": 3**-0.5,
    "Xavier: 1": 1.0,
    "He: √2": 2**0.5,
    "torch, for tanh: 5/3": 5 / 3,
}
IN_FRONT, BEHIND = "in front: E φ(gZ)² = 1", "behind: 1/√(E φ(Z)²)"
RULES = (*FIXED_GAINS, IN_FRONT, BEHIND)


@cache
def _activation(name: str) -> Activation:
    return ACTIVATIONS[name]()


@cache
def _gains(name: str, rule: str) -> tuple[float, float] | None:
    """Return the gains of the first layer and of all others, None where the rule's equation has no root."""
    phi = _activation(name)
    if rule == BEHIND:
        return 1.0, mean_field.gain_behind(phi)
    if rule != IN_FRONT:
        return (FIXED_GAINS[rule],) * 2
    from scipy.optimize import brentq

    def excess(gain: float) -> float:
        return float(mean_field.output_second_moment(phi, gain**2)) - 1

    return (brentq(excess, 0.5, 5),) * 2 if excess(5) > 0 else None


@cache
def _gain_theory(name: str, first: float, gain: float) -> tuple[NDArray, NDArray]:
    """Return q_l, l = 1..DEEPEST, and chi_1 at each, at infinite width, for inputs of second moment 1."""
    phi, q = _activation(name), [first**2]
    for _ in range(DEEPEST - 1):
        q.append(float(mean_field.length_map(phi, q[-1], gain)))
    return np.array(q), mean_field.chi_1(phi, np.array(q), gain)


@lru_cache(maxsize=4)
def _gain_draws(width: int) -> NDArray:
    """Return standard normal numbers (2, layers, networks, width): for the way forward, and for that back."""
    normal = np.random.default_rng(0).standard_normal((2, DEEPEST, GAIN_NETWORKS, width))
    return normal.astype(np.float32)  # halves the time of a redraw


def _dot(x: NDArray, y: NDArray) -> NDArray:
    """Return x · y of each network in float64, in which squares of vanishing signals remain numbers."""
    return np.einsum("...bi,...bi->...b", x, y, dtype=float)


def _gain_networks(
    phi: Activation, first: float, gain: float, depth: int, width: int
) -> tuple[NDArray, NDArray]:
    """Return second moments of z_l, and of the gradient by z_l over that of the last, from the exact law.

    Both (networks, depth). Forward, W h is normal with variance gain**2 mean(h**2). Backward, what is known
    of W is W h = z, so that W^T u is a fresh normal vector but for its part along h, which is h (z u) / h**2.
    """
    forward, backward = _gain_draws(width)[:, :depth]
    z, h = np.float32(first) * forward, np.empty_like(forward)
    squares = np.empty((depth, GAIN_NETWORKS))  # of h
    for layer in range(depth - 1):
        h[layer] = phi(torch.from_numpy(z[layer])).numpy()
        squares[layer] = _dot(h[layer], h[layer])
        z[layer + 1] *= gain / first * np.sqrt(squares[layer] / width)[:, None]
    slopes = phi.derivative(torch.from_numpy(z)).numpy()
    g, gradients = backward[-1], [_dot(backward[-1], backward[-1])]
    for layer in range(depth - 2, -1, -1):
        x, fresh = h[layer], np.float32(gain * np.sqrt(gradients[-1] / width))[:, None] * backward[layer]
        known = (_dot(z[layer + 1], g) - _dot(fresh, x)) / squares[layer]
        g = slopes[layer] * (fresh + x * np.float32(known)[:, None])
        gradients.append(_dot(g, g))
    return _dot(z, z).T / width, (np.array(gradients[::-1]) / gradients[0]).T


def _layers_kept(q: NDArray, chi: NDArray) -> int:
    """Return the depth up to which predicted signal and gradient stay within a factor PROMISE."""
    gradient = np.append(1.0, np.cumprod(chi[:-1]))
    out = np.maximum(np.abs(np.log(q / q[0])), np.abs(np.log(gradient))) > math.log(PROMISE)
    return int(out.argmax()) if out.any() else DEEPEST


def gain_figure(
    activation: str = "GELU", rule: str = "He: √2", depth: int = 50, width: int = 128
) -> tuple[Figure, str]:
    """Draw second moments of signal and gradient by layer in plain networks, for a rule that sets the gain.

    Both relative to where they start: the signal to the first layer's, the gradient to the last's. Where the
    rule has no solution, the gain is 1.
    """
    first, gain = _gains(activation, rule) or (1.0, 1.0)
    q, chi = _gain_theory(activation, first, gain)
    signal, gradient = _gain_networks(_activation(activation), first, gain, depth, width)
    signal = signal / signal[:, :1]
    theory = q[:depth] / q[0], np.append(np.cumprod(chi[: depth - 1][::-1])[::-1], 1.0)
    figure, (ax,) = canvas.new_figure()
    layers, medians = np.arange(1, depth + 1), (np.median(signal, axis=0), np.median(gradient, axis=0))
    every = max(1, depth // 12)
    for samples, law, color, marker in (
        (signal, theory[0], plotting.BLUE, "o"),
        (gradient, theory[1], plotting.ORANGE, "s"),
    ):
        plotting.plot_samples(layers, samples, ax=ax, every=every, color=color, marker=marker)
        ax.plot(layers, law, "k--", linewidth=1.5)
    ends = np.concatenate([*theory, *medians])
    bottom = min(1e-3, ends.min() / 10)
    canvas.set_decades(ax, bottom, max(3e3, 10 * ends.max(), bottom**-0.4))
    _shade(ax, PROMISE)
    canvas.set_layers(ax, depth)
    ax.set(xlabel="layer (l)", ylabel="second moment, relative")
    for height, text, color in ((0.92, "● signal (q)", plotting.BLUE), (0.85, "■ gradient", plotting.ORANGE)):
        ax.text(0.45, height, text, color=color, transform=ax.transAxes)
    kept, within = _layers_kept(q, chi), _within(signal[:, -1], gradient[:, 0])
    ax.set_title(
        f"{activation}, gain {gain:.3g}: predicted to keep {kept} layers; {within} of {GAIN_NETWORKS} "
        f"networks keep {depth}"
    )
    return figure, _about_the_rule(activation, rule) + _gain_sentence(theory, signal[:, -1], gradient[:, 0])


def _within(signal: NDArray, gradient: NDArray) -> int:
    """Return how many networks keep both within a factor PROMISE."""
    return int((np.abs(np.log([signal, gradient])) <= math.log(PROMISE)).all(axis=0).sum())


def _about_the_rule(activation: str, rule: str) -> str:
    """Return what there is to say about the rule's equation: no solution, or a slope that is not 1."""
    gains = _gains(activation, rule)
    if gains is None:
        return f"No gain in front of {activation} gives outputs of second moment 1; drawn with gain 1. "
    if rule in FIXED_GAINS:
        return ""
    first, gain = gains
    slope = float(mean_field.length_slope(_activation(activation), first**2, gain))
    kind = "neutral" if abs(slope - 1) < 1e-6 else "a valley" if slope < 1 else "a hilltop"
    return f"q = {first**2:.2f} is a fixed point, {kind}: each layer multiplies small errors by {slope:.2f}. "


def _gain_sentence(theory: tuple[NDArray, NDArray], signal: NDArray, gradient: NDArray) -> str:
    parts = []
    for name, law, samples in (("signal", theory[0][-1], signal), ("gradient", theory[1][0], gradient)):
        log = comparison.median_of(np.log10(samples))
        parts.append(f"{name} predicted {math.log10(law):z.2f}, median {log}")
    return (
        f"log10 of the factor over {len(theory[0])} layers: {'; '.join(parts)}. "
        f"{_within(signal, gradient)} of {GAIN_NETWORKS} networks keep both within a factor of 30."
    )
