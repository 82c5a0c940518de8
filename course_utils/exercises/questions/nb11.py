"""Exercises of notebook 11: kernels that keep a signal, and what ten thousand layers ask for."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from course_utils.activations import tanh
from course_utils.exercises.asking import Choice, Function, Number, Open, Unreadable, Values
from course_utils.exercises.trying import filled
from course_utils.initializers import delta_orthogonal_, lecun_normal_, normal_, orthogonal_
from course_utils.mean_field import critical_point, length_slope

_TAPS = np.ones(3) / 3
_THREE_LAYERS = np.convolve(np.convolve(_TAPS, _TAPS), _TAPS)  # the walk from one pixel: 7 places
_BIAS_RATIO = 1 / (256 * 0.001)  # squared gradient of a layer's biases over that of its weights
_LENGTH_SLOPE = float(length_slope(tanh, 0.05, critical_point(tanh, 0.05).gain))


def _kept_variance(size: int) -> float:
    """Return what the slowest mode of the walk with absorbing borders keeps in one dimension."""
    return (1 + 2 * math.cos(math.pi / (size + 1))) / 3


def _pixel_norms(delta_) -> Values:
    """Return mean and scatter of the factor on a pixel's squared norm in 1 to 3 dimensions, and all taps."""
    found, taps = [], 0
    for shape, groups, size in (((24, 12, 3), 2, 9), ((20, 5, 3, 5), 4, 7), ((18, 4, 3, 3, 3), 3, 4)):

        def fill_(tensor, generator, groups=groups):
            delta_(tensor, groups, generator)
            if tensor.isnan().any() and not tensor.isnan().all():
                raise Unreadable("taps that you did not write still hold what was there: zero the kernel")

        kernel = filled(fill_, *shape)
        taps += int((kernel.flatten(2) != 0).any(dim=(0, 1)).sum())
        dimensions = len(shape) - 2
        x = torch.randn(20, groups * shape[1], *[size] * dimensions)
        y = getattr(F, f"conv{dimensions}d")(x, kernel, padding="same", groups=groups)
        factor = y.square().sum(dim=1) / x.square().sum(dim=1)
        found += [round(factor.mean().item(), 4), round(factor.std().item(), 4)]
    return (*found, taps)


def delta_(tensor, groups, generator):
    """Fill a grouped kernel so that each group keeps the norm of each pixel."""
    out, channels, *kernel = tensor.shape
    tensor.zero_()
    centre = tensor[(..., *(size // 2 for size in kernel))]
    for rows in centre.split(out // groups):
        rows.copy_(orthogonal_(torch.empty(out // groups, channels), generator=generator))
    return tensor


def _grouped(fill_: Callable = orthogonal_, place: Callable = lambda size: size // 2) -> Callable:
    """Return a `delta_` that fills each group's matrix by `fill_`, and puts it elsewhere if told."""

    def result(tensor, groups, generator):
        out, channels, *kernel = tensor.shape
        tensor.zero_()
        for rows in tensor[(..., *map(place, kernel))].split(out // groups):
            rows.copy_(fill_(torch.empty(out // groups, channels), generator=generator))
        return tensor

    return result


def _all_groups(fill_: Callable, gain: Callable = lambda groups: 1.0) -> Callable:
    """Return a `delta_` that fills the whole tensor at once by `fill_`."""
    return lambda tensor, groups, generator: fill_(tensor, gain(groups), generator)


def _each_tap_(tensor, groups, generator):
    tensor = _grouped()(tensor, groups, generator)
    kernel = tensor.sum(dim=tuple(range(2, tensor.ndim)), keepdim=True)
    return tensor.copy_(kernel.expand_as(tensor) / math.sqrt(math.prod(tensor.shape[2:])))


def _mean_square_(rows, generator):
    return orthogonal_(rows, math.sqrt(len(rows) / rows.shape[1]), generator)


def _gaussian_(rows, generator):
    return normal_(rows, 0.0, len(rows) ** -0.5, generator)


QUESTIONS = (
    Number(
        statement="A linear convolution along a long row of pixels has three taps of independent Gaussian "
        "weights with variance $1/3C$. One pixel is bright. Which share of the energy is expected in that "
        "pixel after three layers?",
        stars=1,
        minutes=4,
        answer=float(_THREE_LAYERS[3]),
        mistakes=(
            (1 / 3, "That is the share after one layer (and, by coincidence, after two)."),
            (1 / 27, "That is one way back, staying three times; there are others."),
            (float(_THREE_LAYERS[2]), "That is the share of the pixel next to it."),
            (1 / 7, "Seven pixels are within reach, but more ways lead to the middle than to the ends."),
        ),
        hints=(
            "Energy moves as a random walk: steps −1, 0, 1 with probability 1/3 each.",
            "Of the 27 walks of three steps, count those that end where they began.",
        ),
        because="Of 27 walks of three steps 7 end where they began.",
        solution="Walks that return: 0, 0, 0, and the six orders of −1, 0, 1. That is 7 of 27, 0.259.",
    ),
    Number(
        statement="A layer has $n = 256$ units and $q^* = 0.001$; its inputs have second moment $q^*$. Which "
        "share of its squared gradient, for one image, sits in its biases?",
        stars=1,
        minutes=4,
        answer=_BIAS_RATIO / (1 + _BIAS_RATIO),
        mistakes=(
            (_BIAS_RATIO, "That is the ratio of biases to weights; a share is out of both."),
            (1 / (1 + _BIAS_RATIO), "That is the share of the weights."),
            (256 * 0.001, "That is |h|², the ratio of weights to biases."),
            (1000 / 1001, "The input has 256 entries of 0.001: weights get |h|² times what biases get."),
        ),
        hints=(
            "The gradients are δ for the biases and δ hᵀ for the weights.",
            "|δ hᵀ|² = |δ|² |h|², and |h|² = n q*.",
        ),
        because="|h|² = 0.256, so the biases have 1 out of 1.256 parts.",
        solution="Squared gradients are |δ|² and |δ|²|h|², |h|² = 256 · 0.001 = 0.256: the biases have "
        "1/1.256 = 0.796.",
    ),
    Number(
        statement="A critical tanh network of 2,000 layers has orthogonal weights. How large may a small "
        "$q^*$ be for a spread $V$ of its squared singular values of at most 0.1, at infinite width?",
        stars=2,
        minutes=4,
        answer=math.sqrt(0.1 / (8 * 2000)),
        tolerance=0.03,
        mistakes=(
            (1 / math.sqrt(8 * 2000), "There V is 1, not 0.1."),
            (0.1 / (8 * 2000), "V goes with the square of q*: take the root."),
            (math.sqrt(0.1 / 2000), "A layer adds 8 q*², not q*²: where did the 8 go?"),
            ((0.1 / (8 * 2000)) ** 0.25, "That is √q*, the standard deviation of the pre-activations."),
        ),
        hints=("What does one layer add to V, if q* is small?", "8 q*² · 2000 = 0.1."),
        because="8 · 0.0025² · 2,000 = 0.1.",
        solution="V = 8 q*² L = 0.1 gives q* = √(0.1/16,000) = 0.0025.",
    ),
    Number(
        statement="Linear convolutions with zero padding on $6\\times6$ positions, $3\\times3$ kernels of "
        "independent Gaussian weights. By which factor must the variance $1/9C$ be raised, so that the "
        "slowest mode keeps its expected energy from layer to layer?",
        stars=2,
        minutes=5,
        answer=_kept_variance(6) ** -2,
        mistakes=(
            (
                1 / _kept_variance(6),
                "That is the loss along one side only; or the factor on the weights' std.",
            ),
            (_kept_variance(6) ** 2, "That is what a layer keeps; the factor has to make up for it."),
            (
                _kept_variance(5) ** -2,
                "With 6 positions the wave is 0 at places 0 and 7, so its length is 7.",
            ),
            (
                ((1 + 2 * math.cos(2 * math.pi / 7)) / 3) ** -2,
                "That is a faster mode, which changes its sign in the middle.",
            ),
        ),
        hints=(
            "Which share of the slowest mode's energy does one layer keep?",
            "In one dimension (1 + 2 cos(π/7))/3, in two its square.",
        ),
        because="A layer keeps 0.872 of the slowest mode, and 1/0.872 is 1.146.",
        solution="The slowest mode keeps [(1 + 2 cos(π/7))/3]² = 0.934² = 0.872 a layer, so the factor is "
        "1.146. The typical energy still falls, by the log-normal drift.",
    ),
    Choice(
        statement="In each of 40 layers the $3\\times3$ kernel has an orthogonal matrix in the tap to the "
        "right of the centre, and zeros elsewhere. Images have $8\\times8$ pixels. On what does every image "
        "keep its norm: `a torus`, `zero padding`, `both`, or `neither`?",
        stars=2,
        minutes=3,
        options={
            "a torus": "Each layer turns the pixels and moves all of them by one; on a torus none is lost.",
            "zero padding": "There a column of pixels leaves the image in each layer; after 8 none is left.",
            "both": "With zero padding what moves over the border is lost, a column in each layer.",
            "neither": "One nonzero tap moves pixels without mixing them: where nothing leaves, norms stay.",
        },
        answer="a torus",
        hints=("What does such a layer do to one pixel?", "It turns it, and puts it next to where it was."),
        solution="A layer turns each pixel's vector and shifts the image by one. On a torus it is an "
        "isometry; "
        "with zero padding a column is lost in each layer, and all is gone after 8.",
    ),
    Number(
        statement="A critical tanh network has $q^* = 0.05$, random biases included, and great width. An "
        "input "
        "arrives 1 % too long. After how many layers is only a fiftieth of that deviation left?",
        stars=2,
        minutes=6,
        answer=math.log(50) / -math.log(_LENGTH_SLOPE),
        tolerance=0.008,  # 43 is right, 42 is not
        mistakes=(
            (
                math.log(50) / (2 * 0.05),
                "The slope 1 − 2q* is for q* near 0; at 0.05 it is a little nearer to 1.",
            ),
            (
                math.log(50) / -math.log(1 - 2 * 0.05),
                "The slope is 1 − 2q* to first order only, and 0.1 is not that small.",
            ),
            (1 / -math.log(_LENGTH_SLOPE), "After so many layers a factor of e is gone, not of 50."),
            (math.log(2500) / -math.log(_LENGTH_SLOPE), "That takes a factor of 2,500, the square of 50."),
            (42, f"A little more than a fiftieth is left then, {_LENGTH_SLOPE**42:.4f}."),
            (
                math.log(50) / -math.log(_LENGTH_SLOPE) / 2,
                "A small deviation of the RMS is half of that of q, but both shrink by the same factor.",
            ),
        ),
        hints=(
            "χ₁ = 1 is about directions. Which slope is about lengths?",
            "`mean_field.length_slope` at q*, with the gain of `critical_point`. The deviation is "
            "multiplied by slope^L, and shall be 1/50.",
        ),
        because="The length map has the slope 0.912 at q*: lengths are forgotten where χ₁ = 1 keeps the "
        "rest.",
        solution="At the critical gain 1.046 the slope dq'/dq is 0.9125, and 0.9125^L = 1/50 at L = 42.7. "
        "It is "
        "the one direction, that of h itself, that an isometry of tanh layers loses.",
    ),
    Function(
        statement="Write `delta_`: fill a kernel `(out, in / groups, *sizes)` of 1 to 3 odd sizes in place, "
        "drawing from `generator`, so that a convolution with these `groups`, padded with zeros to keep the "
        "size, keeps the norm of every pixel. `out` is at least `in`.",
        stars=3,
        minutes=12,
        stub="def delta_(tensor, groups, generator):",
        measure=_pixel_norms,
        names=(
            "factor on a squared norm, kernel (24, 12, 3), 2 groups",
            "its scatter over pixels",
            "the same for (20, 5, 3, 5), 4 groups",
            "its scatter",
            "the same for (18, 4, 3, 3, 3), 3 groups",
            "its scatter",
            "taps that are not 0 in the three kernels",
        ),
        right=delta_,
        tolerance=0.02,
        mistakes=(
            (
                _all_groups(delta_orthogonal_),
                "One matrix for all groups has orthonormal columns as a whole: a group has only some rows "
                "of it.",
            ),
            (
                _all_groups(delta_orthogonal_, math.sqrt),
                "The mean is repaired, but a group's rows are still no isometry: pixels differ.",
            ),
            (
                _all_groups(orthogonal_),
                "A flattened kernel mixes each pixel with its neighbours: patches overlap.",
            ),
            (_all_groups(lecun_normal_), "Gaussian kernels mix pixels, and keep energy on average at best."),
            (
                _grouped(_gaussian_),
                "The place is right; but Gaussian matrices stretch some vectors more than others.",
            ),
            (
                _grouped(_mean_square_),
                "That keeps the mean square of 4 channels in 6: the norm of a pixel grows.",
            ),
            (_grouped(place=lambda size: 0), "That is the first tap, which moves pixels over the border."),
            (_each_tap_, "All taps hold the matrix, so that neighbours are added up: norms are mixed."),
        ),
        hints=(
            "A group maps its own in/groups channels to out/groups of its own: that has to be an isometry.",
            "Zeros, and in the centre, for each block of out/groups rows, an orthogonal matrix.",
        ),
        because="Each group's pixels are turned, nothing moves, nothing is lost.",
        solution="The rows of one group see only its own channels; so each block of out/groups rows gets a "
        "matrix with orthonormal columns, in the centre:",
    ),
    Open(
        statement="For SGD the notebook found the rate $c/L$. What is the rule for Adam, whose step does not "
        "depend on the size of a gradient? Derive it to first order for a chain that starts as an isometry; "
        "answer in a sentence or two.",
        stars=3,
        minutes=8,
        hints=(
            "In the first steps Adam moves each weight by about η in the direction against its gradient.",
            "The loss falls by η times the sum of |gradient| over all weights: how does that grow with L?",
        ),
        because="each weight moves by about η, so the loss falls by η Σ|g|, summed over all weights. In an "
        "isometry all layers have gradients of the same size, so the sum is L times that of one layer, and "
        "again η = c/L. For one image a layer's sum is about (2/π)|δ||h| n = (2/π) n√n |e|, e the error at "
        "the logits: q* cancels as for SGD, and c falls with the width, faster than there.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
