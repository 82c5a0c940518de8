"""What the demos of notebooks 05 to 07 draw: the way back, the loss at step 0 and the first step.

Each `*_figure` function turns the values of a demo's controls into a figure and a sentence with the predicted
and the measured numbers; it needs no browser.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from course_utils import comparison, data, initializers, plotting
from course_utils.activations import relu
from course_utils.demos import canvas
from course_utils.networks import Ensemble

# Notebook 05: pyramids of He networks.
PYRAMIDS = 500
NARROW = 128
SHAPES = ("narrowing", "widening", "alternating")
MODES = ("fan_in", "fan_avg", "fan_out")

# Notebook 06: the last layer of real networks on real images.
NETWORKS = 200
IMAGES_PER_CLASS = 5
MULTIPLES = np.linspace(0, 3, 61)  # of ln p; every tenth is measured

# Notebook 07: one step of networks that are small enough to take it while a slider moves.
FACTORS = 2.0 ** np.linspace(-2, 2, 9)
COPIES, WIDTH, STEP_IMAGES_PER_CLASS = 6, 32, 3
EPSILON = 1e-8  # Adam's
SHARE_LIMITS = 1e-13, 1e2
OPTIMIZERS = ("SGD", "Adam")


def widths_of(shape: str, ratio: float, depth: int) -> NDArray[np.int64]:
    """Return the widths of layers 0..depth, the narrowest 128 and the widest `ratio` times that."""
    layers = np.arange(depth + 1)
    exponent = {"narrowing": 1 - layers / depth, "widening": layers / depth, "alternating": layers % 2}
    return np.rint(NARROW * ratio ** exponent[shape]).astype(int)


def weight_variances(widths: NDArray[np.int64], mode: str) -> NDArray:
    """Return He's variance 2 / fan of each layer's weights, shape (depth,)."""
    n_in, n_out = widths[:-1], widths[1:]
    return 2 / {"fan_in": n_in, "fan_out": n_out, "fan_avg": (n_in + n_out) / 2}[mode]


def pyramid_chains(
    widths: NDArray[np.int64], variances: NDArray, rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Return second moments of h_l and of dL/dh_l of ReLU networks, each of shape (PYRAMIDS, depth + 1).

    Given the layer below, z is N(0, Var(w) |h|²) in every unit, independently. K ~ Binomial(n, 1/2) of them
    are positive, and |h|² is that variance times chi² with K degrees of freedom. Backwards a normal error
    stays normal: the mask lets K of its entries through, and W's transpose turns their square sum into the
    next variance. Each chain has its exact law; the two are drawn independently of one another.
    """
    shape = PYRAMIDS, len(widths)
    signal, gradient = np.empty((2, *shape))
    unit = 2 * rng.gamma(rng.binomial(widths, 0.5, shape) / 2)  # chi² of the positive units
    square = signal_square = 2 * rng.gamma(widths[0] / 2, size=PYRAMIDS)
    signal[:, 0] = signal_square / widths[0]
    for layer, variance in enumerate(variances, start=1):
        square = square * variance * unit[:, layer]
        signal[:, layer] = square / widths[layer]
    active = rng.binomial(widths, 0.5, shape)
    through, blocked = 2 * rng.gamma(active / 2), 2 * rng.gamma((widths - active) / 2)
    scale = np.ones(PYRAMIDS)
    for layer in range(len(widths) - 1, -1, -1):
        gradient[:, layer] = scale * (through + blocked)[:, layer] / widths[layer]
        if layer:
            scale = scale * variances[layer - 1] * through[:, layer]
    return signal, gradient


def pyramid_figure(
    shape: str = "narrowing", mode: str = "fan_avg", ratio: float = 4.0, depth: int = 20
) -> tuple[Figure, str]:
    """Draw second moments of signal and gradient by layer for ReLU networks with Var(w) = 2 / fan."""
    widths = widths_of(shape, ratio, depth)
    variances = weight_variances(widths, mode)
    upwards = np.cumprod([1, *(widths[:-1] * variances / 2)])
    downwards = np.cumprod([1, *(widths[1:] * variances / 2)[::-1]])[::-1]
    signal, gradient = pyramid_chains(widths, variances, np.random.default_rng(0))
    figure, (ax,) = canvas.new_figure()
    layers = np.arange(depth + 1)
    for samples, theory, color, marker in (
        (signal, upwards, plotting.BLUE, "o"),
        (gradient, downwards, plotting.ORANGE, "^"),
    ):
        plotting.plot_samples(layers, samples, ax=ax, center=np.mean, color=color, marker=marker)
        ax.plot(layers, theory, "k--", linewidth=1.5)
    _draw_silhouette(ax, widths)
    both = np.concatenate([upwards, downwards])
    canvas.set_decades(ax, min(1e-3, both.min() / 100), max(1e3, 30 * both.max()))
    canvas.set_layers(ax, depth)
    ax.set(
        xlabel="layer (l)",
        ylabel="second moment (m, g)",
        title=f"{mode}: signal × {upwards[-1]:.3g} at the top, gradient × {downwards[0]:.3g} at the bottom",
    )
    return figure, (
        f"Second moments over {depth} layers, means of {PYRAMIDS:,} networks. Signal at the top: "
        f"{_versus(upwards[-1], signal[:, -1])}; gradient at the bottom: "
        f"{_versus(downwards[0], gradient[:, 0])}."
    )


def _versus(predicted: float, samples: NDArray) -> str:
    """Return prediction and measured mean as text, to the digits that the standard error supports."""
    row = comparison.Row("", float(predicted), comparison.mean_of(samples))
    return "predicted {}, measured {} ± {}".format(*comparison.format_estimate(row))


def _draw_silhouette(ax: Axes, widths: NDArray[np.int64]) -> None:
    """Draw the widths of the layers along the bottom, and name the two moments at the top."""
    place = ax.get_xaxis_transform()
    top = 0.02 + 0.14 * widths / widths.max()
    ax.fill_between(
        range(len(widths)),
        0.02,
        top,
        step="mid",
        transform=place,
        color=plotting.GREY,
        alpha=0.3,
        linewidth=0,
    )
    first, second, *_, last = (f"{n:,}" for n in widths)
    style = {"transform": ax.transAxes, "ha": "center"}
    middle = (len(widths) - 1) / 2
    ax.text(middle, 0.035, f"widths {first}, {second}, …, {last}", fontsize=11, ha="center", transform=place)
    ax.text(0.27, 0.93, "● signal (m), on its way up", color=plotting.BLUE, **style)
    ax.text(0.73, 0.93, "▲ gradient (g), on its way down", color=plotting.ORANGE, **style)


@lru_cache(maxsize=2)
def _balanced_batch(classes: int, per_class: int) -> tuple[Tensor, Tensor]:
    """Return the first `per_class` training digits of each class, sorted by class: inputs and labels."""
    images = data.digits()
    groups = [torch.nonzero(images.train_labels == k).flatten()[:per_class] for k in range(classes)]
    index = torch.cat(groups)
    return images.train_inputs[index], images.train_labels[index]


@lru_cache(maxsize=1)
def unit_logits() -> NDArray:
    """Return logits of variance 1 of real networks, shape (networks, class of the image, images, logits).

    The last hidden layer of each image is scaled to mean square 1. Then the ten logits of one image are
    independent N(0, 1) over random last layers of gain 1, whatever the layers before; images of one network
    share its last layer.
    """
    inputs, _ = _balanced_batch(10, IMAGES_PER_CLASS)
    net = Ensemble(
        NETWORKS,
        [inputs.shape[1], 100, 100, 10],
        relu,
        initializers.kaiming_normal_,
        output_init_=initializers.lecun_normal_,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        *_, hidden, _ = net.double().layers(inputs.double())
        hidden /= hidden.square().mean(dim=-1, keepdim=True).sqrt()
        logits = hidden @ net.weights[-1].mT
    return logits.reshape(NETWORKS, 10, IMAGES_PER_CLASS, 10).numpy()


def class_shares(share: float, classes: int) -> NDArray:
    """Return the classes' shares: `share` for the first one, the rest equally for the others."""
    return np.array([share] + [(1 - share) / (classes - 1)] * (classes - 1))


def first_losses(gain: float, share: float, classes: int) -> NDArray:
    """Return the first loss of each network, averaged over images with the classes' shares as weights.

    Shape (7, networks): for output biases of every tenth of the `MULTIPLES` of ln p. A network's last layer
    has std gain / sqrt(fan_in).
    """
    p = class_shares(share, classes)
    biases = MULTIPLES[::10, None] * np.log(p)
    logits = gain * unit_logits()[:, :classes, :, :classes]
    own = np.einsum("nkik->nk", logits) / IMAGES_PER_CLASS + biases[:, None]
    log_sums = np.log(np.exp(logits) @ np.exp(biases).T).mean(axis=2)  # (networks, classes, 7)
    return (np.moveaxis(log_sums, 2, 0) - own) @ p


@lru_cache(maxsize=4)
def _distribution(gain: float) -> tuple[NDArray, Callable[[NDArray], NDArray]]:
    """Return points t, and P(z + G <= t) of z ~ N(0, gain**2) and a Gumbel G as a function of t."""
    from scipy.interpolate import CubicSpline  # takes longer to import than everything here

    t = np.arange(-8 * gain - 6, 8 * gain + 40, 0.1)
    z = np.linspace(-8.5, 8.5, 61 + int(60 * gain))
    density = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    return t, CubicSpline(t, np.exp(-np.exp(np.minimum(gain * z - t[:, None], 700))) @ density)


def expected_losses(gain: float, share: float, classes: int) -> NDArray:
    """Return the expected first loss at each of the `MULTIPLES` of ln p, for logits N(bias, gain**2).

    E ln sum_k exp(b_k + z_k) = E max_k (b_k + z_k + G_k) - Euler's gamma with independent Gumbel G_k.
    """
    p = class_shares(share, classes)
    t, distribution = _distribution(gain)
    common, rare = max(p[0], p[1]), min(p[0], p[1])
    gaps = MULTIPLES[:, None] * np.log(common / rare)
    of_common, of_rare = distribution(t), distribution(np.minimum(t + gaps, t[-1]))
    below = of_common ** np.sum(p == common) * of_rare ** np.sum(p != common)
    largest = MULTIPLES * np.log(common) + t[-1] - np.trapezoid(below, t, axis=1)
    return largest - np.euler_gamma - MULTIPLES * (p @ np.log(p))


def first_loss_figure(gain: float = np.sqrt(2), share: float = 0.7, classes: int = 10) -> tuple[Figure, str]:
    """Draw the loss at step 0 against the output bias, in multiples of ln p, for a last layer of `gain`.

    `share` is that of the first class; the others share the rest. The gain is √fan_in times a std.
    """
    p = class_shares(share, classes)
    theory, losses = expected_losses(gain, share, classes), first_losses(gain, share, classes)
    entropy = -p @ np.log(p)
    balanced = np.ptp(p) < 1e-9  # then one bias is as good as another, and only rounding tells them apart
    best = 20 if balanced else np.argmin(theory)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_samples(MULTIPLES[::10], losses.T, ax=ax, center=np.mean)
    ax.plot(MULTIPLES, theory, "k--", linewidth=1.5)
    ax.plot(MULTIPLES[best], theory[best], "D", color=plotting.ORANGE, markersize=12, fillstyle="none")
    _draw_references(ax, np.log(classes), entropy)
    place = "with any multiple of ln p" if balanced else f"at a bias of {MULTIPLES[best]:.2f} ln p"
    if MULTIPLES[best] == MULTIPLES[-1]:  # the true lowest point is beyond what is drawn
        place += " or beyond"
    ax.set(
        xlabel="output bias in multiples of ln p (β)",
        xticks=range(4),
        ylabel="loss at step 0",
        ylim=(0, np.ceil(1.05 * max(np.percentile(losses, 97.5, axis=1).max(), np.log(classes)))),
        title=f"Lowest mean first loss {theory[best]:.3f}, {place}",
    )
    return figure, (
        f"Mean first loss of {NETWORKS} networks. Bias 0: {_versus(theory[0], losses[0])}. Bias ln p: "
        f"{_versus(theory[20], losses[2])}. The least that any bias reaches here is {theory[best]:.3f}; an "
        f"informed guess costs H(p) = {entropy:.3f}."
    )


def _draw_references(ax: Axes, log_classes: float, entropy: float) -> None:
    """Draw what a blind and an informed guess cost, and name them beyond the end of the curve."""
    below = "top" if entropy > log_classes / 2 else "bottom"
    for level, name, side in ((log_classes, "ln K", "bottom"), (entropy, "H(p)", below)):
        ax.axhline(level, color=plotting.GREY, linewidth=1)
        ax.text(3.08, level, name, va=side, color=plotting.GREY)
    ax.set_xlim(-0.1, 3.4)


def _logits(weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Return logits (networks, images, 10) of ReLU networks with weights (networks, fan_out, fan_in)."""
    *hidden, last = weights
    h = inputs.expand(len(last), *inputs.shape)
    for weight in hidden:
        h = torch.relu(torch.bmm(h, weight.mT))
    return torch.bmm(h, last.mT)


def _losses(weights: Sequence[Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy (networks,) of such networks, in nats."""
    logits = _logits(weights, inputs)
    target = labels.expand(logits.shape[:-1])
    losses = torch.nn.functional.cross_entropy(logits.mT, target, reduction="none")
    return losses.mean(dim=1)


@lru_cache(maxsize=2)
def he_weights(hidden: int) -> list[Tensor]:
    """Return the weights of COPIES networks, each (COPIES, fan_out, fan_in): He's, in the last layer LeCun's.

    float64, because a step may lower the loss by 1e-12.
    """
    generator = torch.Generator().manual_seed(0)
    widths = [_batch()[0].shape[1]] + [WIDTH] * hidden + [10]
    weights = []
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        draws = torch.randn(COPIES, fan_out, fan_in, generator=generator, dtype=torch.float64)
        weights.append(draws * ((2 if layer < hidden else 1) / fan_in) ** 0.5)
    return weights


def _step(gradient: Tensor, optimizer: str) -> Tensor:
    """Return the first step of SGD or Adam at learning rate 1."""
    return gradient if optimizer == "SGD" else gradient / (gradient.abs() + EPSILON)


@lru_cache(maxsize=2)
def _first_gradients(hidden: int) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Return weights, first losses and their gradients for all FACTORS × COPIES networks."""
    scale = torch.from_numpy(FACTORS)[:, None, None, None]
    *hidden_weights, last = he_weights(hidden)
    scaled = [*(scale * w for w in hidden_weights), torch.ones_like(scale) * last]
    weights = [w.flatten(0, 1).requires_grad_() for w in scaled]
    losses = _losses(weights, *_batch())
    return weights, losses.detach(), torch.autograd.grad(losses.sum(), weights)


def _batch() -> tuple[Tensor, Tensor]:
    inputs, labels = _balanced_batch(10, STEP_IMAGES_PER_CLASS)
    return inputs.double(), labels


def measured_shares(hidden: int, rate: float, optimizer: str) -> NDArray:
    """Return the share of each network's loss that one step removes, (factors, copies), negative for a rise.

    Rises beyond a hundred times the loss count as a hundred times.
    """
    weights, before, gradients = _first_gradients(hidden)
    with torch.no_grad():
        stepped = [w - rate * _step(g, optimizer) for w, g in zip(weights, gradients, strict=True)]
        shares = (before - _losses(stepped, *_batch())) / before
    return shares.clamp(min=-SHARE_LIMITS[1]).reshape(len(FACTORS), COPIES).numpy()


@lru_cache(maxsize=4)
def predicted_shares(hidden: int, optimizer: str) -> NDArray:
    """Return the predicted share of the loss that one step removes per unit of learning rate.

    Shape (factors, copies), to first order in the rate and for tiny logits: the loss is ln 10, and gradients
    are c**(hidden - 1) times those of He's network with the error of a uniform guess, in the last layer
    c**hidden times.
    """
    inputs, labels = _batch()
    weights = [w.clone().requires_grad_() for w in he_weights(hidden)]
    error = (0.1 - torch.nn.functional.one_hot(labels, 10)) / len(labels)
    *gradients, last = torch.autograd.grad((_logits(weights, inputs) * error).sum(), weights)
    flat = torch.cat([g.flatten(1) for g in gradients], dim=1), last.flatten(1)
    shares = []
    for c in FACTORS:
        scaled = c ** (hidden - 1) * flat[0], c**hidden * flat[1]
        shares.append(sum((g * _step(g, optimizer)).sum(dim=1) for g in scaled) / np.log(10))
    return torch.stack(shares).numpy()


def first_step_figure(hidden: int = 4, rate: float = 0.1, optimizer: str = "SGD") -> tuple[Figure, str]:
    """Draw the share of the loss that one step removes, for ReLU networks with He's weights times c."""
    shares = measured_shares(hidden, rate, optimizer)
    first = _first_gradients(hidden)[1].numpy().reshape(shares.shape)
    theory = rate * np.median(predicted_shares(hidden, optimizer), axis=1)
    figure, (ax,) = canvas.new_figure()
    _draw_shares(ax, shares, np.median(first, axis=1), theory)
    _name_marks(ax)
    good = FACTORS[np.median(shares, axis=1) >= 0.01]
    window = f"from c = {good[0]:.2g} to {good[-1]:.2g}" if good.size else "nowhere"
    if good.size == 1:
        window = f"at c = {good[0]:.2g} only"
    ax.set(
        xlabel="He's weights times (c)",
        ylabel="share of the loss removed",
        title=f"{hidden} hidden layer{'s' * (hidden > 1)}: one step removes 1 % or more {window}",
    )
    return figure, _step_sentence(shares[3], rate * predicted_shares(hidden, optimizer)[3], optimizer)


def _draw_shares(ax: Axes, shares: NDArray, first: NDArray, theory: NDArray) -> None:
    """Draw falls as circles with their range, rises as crosses, and the prediction.

    A circle is hollow where the `first` loss was more than twice that of a guess: its share says little.
    """
    octaves, median = np.log2(FACTORS), np.median(shares, axis=1)
    falls, rises = median > SHARE_LIMITS[0], median < -SHARE_LIMITS[0]
    everywhere = (shares > 0).all(axis=1)
    low, high = np.abs(shares).min(axis=1), np.abs(shares).max(axis=1)
    ax.fill_between(octaves, low, high, where=everywhere & falls, color=plotting.BLUE, alpha=0.2, linewidth=0)
    for chosen, style in ((first <= 2 * np.log(10), "full"), (first > 2 * np.log(10), "none")):
        ax.plot(octaves[falls & chosen], median[falls & chosen], "o", color=plotting.BLUE, fillstyle=style)
    ax.plot(octaves[rises], -median[rises], "x", color=plotting.ORANGE, markersize=11, markeredgewidth=3)
    ax.plot(octaves, theory, "k--", linewidth=1.5)
    ax.axhline(0.01, color=plotting.GREY, linewidth=1)
    canvas.set_decades(ax, SHARE_LIMITS[0] / 10, 10 * SHARE_LIMITS[1])


def _name_marks(ax: Axes) -> None:
    """Name the scales of weights along the axis, and say what the markers mean."""
    names = {0.25: "1/4", 6**-0.5: "torch", 2**-0.5: "Xavier", 1.0: "He = 1", 2.0: "2", 4.0: "4"}
    ax.set_xticks(np.log2([*names]), names.values())
    ax.set_xlim(-2.1, 2.4)
    ax.text(2.12, 0.015, "1 %", color=plotting.GREY)
    ax.text(0.53, 0.13, "● loss falls   ○ from above 2 ln 10", color=plotting.BLUE, transform=ax.transAxes)
    ax.text(
        0.53, 0.05, "✖ loss rises by as much (100: or more)", color=plotting.ORANGE, transform=ax.transAxes
    )


def _step_sentence(measured: NDArray, predicted: NDArray, optimizer: str) -> str:
    text = (
        f"Xavier's weights (c = 0.71): predicted share that one step of {optimizer} removes "
        f"{np.median(predicted):.2g}"
    )
    if (predicted < SHARE_LIMITS[0]).any():
        return f"{text}, less than can be measured."
    if (measured <= 0).any():
        return f"{text}; measured, the loss rises in {(measured <= 0).sum()} of {COPIES} networks."
    return (
        f"{text}, measured {np.median(measured):.2g} (medians of {COPIES} networks). Their ratio, network by "
        f"network: {_versus(1.0, measured / predicted)}."
    )
