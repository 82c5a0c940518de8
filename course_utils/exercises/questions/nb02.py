"""Exercises of notebook 02: weights of variance 1/n, and how far networks of one law differ."""

import math
from itertools import pairwise

import torch
from torch import nn

from course_utils.activations import linear
from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values, as_number
from course_utils.exercises.running import Unreadable
from course_utils.exercises.trying import check_independence, in_place
from course_utils.initializers import calculate_fans
from course_utils.network_laws import exact_log_growth

_DRIFT = exact_log_growth(linear, 1.0, 200)[0]  # of ln m in one layer
_NARROW = exact_log_growth(linear, 1.0, 50)[0]
_EXCESS = 3 * 128 / 8 - 3  # kurtosis of the sparse weights over that of normal ones
_CASES = ((128, 64, 2.0), (256, 400, 1.5), (64, 8, 1.2), (1000, 500, 3.0))  # width, depth, factor


def _growths(repair) -> Values:
    """Return fan_in times mean(w²) in each layer of a repaired network. Raises: Unreadable for a mean."""
    generator = torch.Generator().manual_seed(3)
    widths = (200, 500, 300, 600)
    model = nn.Sequential(*(nn.Linear(*pair, bias=False) for pair in pairwise(widths)))
    with torch.no_grad():
        for layer, fan_out in zip(model, widths[1:], strict=True):
            layer.weight.normal_(std=fan_out**-0.5, generator=generator)
        in_place(repair, model)
    weights = [p.detach().double() for p in model.parameters()]
    check_independence(weights)
    for w in weights:
        mean = (w.mean() / w.square().mean().sqrt()).item()
        if abs(mean) > 6 * w.numel() ** -0.5:  # standard errors
            raise Unreadable(
                f"weights have a mean, {mean:.2g} of their RMS: equal signs add up from the second layer on"
            )
    return tuple(w.shape[1] * w.square().mean().item() for w in weights)


def repair(model):
    """Rescale each weight to the standard deviation 1/√fan_in."""
    for layer in model:
        fan_out, fan_in = layer.weight.shape
        layer.weight.data *= math.sqrt(fan_out / fan_in)


def _drawn_by_fan_out(model) -> None:
    for layer in model:
        nn.init.normal_(layer.weight, std=layer.out_features**-0.5)


def _rescaled(variance):
    """Return a repair that gives each weight a variance which follows from its fans."""

    def wrong(model) -> None:
        for layer in model:
            fan_in, fan_out = calculate_fans(layer.weight)
            layer.weight *= math.sqrt(fan_out * variance(fan_in, fan_out))

    return wrong


def _shares(share_within) -> Values:
    """Return the shares that it predicts in each case."""
    return tuple(as_number(share_within(*case)) for case in _CASES)


def share_within(width, depth, factor):
    """Return the share of networks whose last RMS is within `factor` of the median, to either side."""
    std = math.sqrt(depth / (2 * width))  # of ln RMS
    return math.erf(math.log(factor) / std / math.sqrt(2))


def _share_of_m(width, depth, factor):
    return share_within(width, 4 * depth, factor)


def _share_of_variance(width, depth, factor):
    return math.erf(math.log(factor) / (depth / (2 * width)) / math.sqrt(2))


def _share_of_sum(width, depth, factor):
    return share_within(width, 2 * depth, factor)


def _share_without_root(width, depth, factor):
    return math.erf(math.log(factor) / math.sqrt(depth / (2 * width)))


def _share_on_one_side(width, depth, factor):
    return share_within(width, depth, factor) / 2


def _share_in_percent(width, depth, factor):
    return 100 * share_within(width, depth, factor)


def _share_outside(width, depth, factor):
    return 1 - share_within(width, depth, factor)


def _share_below(width, depth, factor):
    return (1 + share_within(width, depth, factor)) / 2


def _share_around_one(width, depth, factor):
    variance = depth / (2 * width)  # of ln RMS; minus its mean, too
    ends = [(sign * math.log(factor) + variance) / math.sqrt(2 * variance) for sign in (-1, 1)]
    return (math.erf(ends[1]) - math.erf(ends[0])) / 2


QUESTIONS = (
    Number(
        statement="A linear layer `nn.Linear(400, 100)` gets weights by LeCun's rule, which keeps the second "
        "moment. What is their standard deviation?",
        stars=1,
        minutes=2,
        answer=1 / math.sqrt(400),
        mistakes=(
            (1 / 400, "That is the variance; the standard deviation is its root."),
            (1 / math.sqrt(100), "You took the 100 outputs: a unit sums over the inputs."),
            (
                math.sqrt(2 / 500),
                "That averages the 400 inputs and the 100 outputs; only one of them counts.",
            ),
            (math.sqrt(2 / 400), "That has twice the variance that keeps a linear layer's signal."),
        ),
        hints=("How many products does one unit add?", "n Var(w) = 1, with n = 400 inputs."),
        because="A unit adds 400 products, so Var(w) = 1/400.",
        solution="n Var(w) = 1 with n = 400 inputs: Var(w) = 0.0025, and its root is 0.05.",
    ),
    Number(
        statement="Linear networks of width 96 and 24 layers, with $\\operatorname{Var}(w) = 1/n$, spread by "
        "some factor around their median. How many layers may width 768 have for the same spread?",
        stars=1,
        minutes=2,
        answer=24 * 768 / 96,
        mistakes=(
            (24 * math.sqrt(8), "Depth enters as depth / width, without a root: 768/96 = 8."),
            (24.0, "With equal depth the wider network spreads less: Var ln m is about 2L/n."),
            (24 * 8.0**2, "You scaled by 8², the ratio of the numbers of weights."),
            (24 / 8, "The wider network spreads less per layer, so it may be deeper, not shallower."),
        ),
        hints=("Which combination of depth and width sets the spread?", "24/96 = L/768."),
        because="L/n has to stay at 1/4.",
        solution="Var ln m = 2L/n up to O(1/n), so L/n = 24/96 = 1/4, and L = 768/4 = 192.",
    ),
    Number(
        statement="$z = \\sum_{k=1}^4 w_k h_k$ has only four terms, all independent: $w_k$ uniform with mean "
        "0 and variance 1 (fourth moment 9/5), $h_k \\sim N(0, 1)$. What is the kurtosis of $z$, $\\mathbb E "
        "z^4 / (\\mathbb E z^2)^2$?",
        stars=2,
        minutes=5,
        answer=3 + (9 / 5 * 3 - 3) / 4,
        mistakes=(
            ((9 / 5 * 3 - 3) / 4, "That is the excess over 3; the kurtosis counts the 3, too."),
            (9 / 5 * 3, "That is the kurtosis of one product; z adds four of them."),
            (3.0, "So it is for infinitely many terms; four leave a trace of their own shape."),
            (3 + 6 / 4, "6 is the excess for normal weights; these are uniform, of fourth moment 9/5."),
            (9 / 5 * 3 / 4, "Not the kurtosis is divided by four, but its excess over 3."),
            (3 + 9 / 5 * 3 / 4, "You divided 27/5 by four; first take off the 3 of a normal variable."),
        ),
        hints=("What is the excess over 3 of one product, and of the sum?", "One product has 9/5 · 3 = 5.4."),
        because="One product has an excess of 2.4 over 3, and the sum of four a quarter of it.",
        solution="E (wh)⁴ = 9/5 · 3 = 5.4, an excess of 2.4; a sum of 4 has 3 + 2.4/4 = 3.6.",
    ),
    Number(
        statement="A linear network of width 200 has 100 layers, $\\operatorname{Var}(w) = 1/n$, Gaussian "
        "weights, no biases. The input has RMS 1. What is the median RMS of the last layer?",
        stars=2,
        minutes=3,
        answer=math.exp(100 * _DRIFT / 2),
        mistakes=(
            (1.0, "That is the root of the mean of m, held up by few large networks; most lie below."),
            (
                math.exp(100 * _DRIFT),
                "That is the median of m, e^(−L/n) with L/n = 1/2; the RMS is its root.",
            ),
            (math.exp(100 * _DRIFT / 4), "You halved twice: L/n = 1/2 is the drift of ln m, not of ln RMS."),
            (math.exp(-100 * _DRIFT / 2), "The logarithm drifts down by L/n, not up."),
        ),
        hints=("By how much does ln m drift in 100 layers?", "By −100/200; ln RMS is half of ln m."),
        because="ln m drifts by −100/200, so the median RMS is e^(−1/4).",
        solution="The mean of ln m is −L/n = −0.5, that of ln RMS −0.25, and e^(−0.25) = 0.78.",
    ),
    Choice(
        statement="A linear network of width 10 has 200 layers, $\\operatorname{Var}(w) = 1/n$, Gaussian "
        "weights. In float64, the mean of $m$ over 100 networks is $10^{-4}$, while $\\mathbb E\\,m = 1$. "
        'What explains it: the small "sample", the small "width", the "drift" of $\\ln m$, or "rounding"?',
        stars=2,
        minutes=4,
        options={
            "sample": "ln m has a standard deviation of about √(2L/n) = 6.3: networks rarer than 1 in 100 "
            "hold up the mean.",
            "width": "E m = 1 is exact at any width, 10 included: E χ²_n/n = 1.",
            "drift": "ln m drifts down by about L/n = 20, but E m is 1 in spite of it.",
            "rounding": "Float64 has 16 digits at any size, and 10^(−4) is far from its smallest number.",
        },
        answer="sample",
        hints=(
            "How far do networks with depth / width = 20 spread?",
            "m is about log-normal, ln m with mean −20 and variance 40: where is the mass of its mean?",
        ),
        solution="For a log-normal m, E m comes from networks about √(2L/n) = 6 standard deviations above "
        "the median. Among 100 networks the largest is 2.5 above it, so that nearly every sample mean is far "
        "too small. That is why ln m is what one measures.",
    ),
    Function(
        statement="Someone drew the weights of a linear network with standard deviation "
        "$1/\\sqrt{\\text{fan-out}}$. `model` is an `nn.Sequential` of `nn.Linear` without biases, of "
        "unequal widths. Write `repair`: change the weights in place so that each layer keeps the second "
        "moment on average.",
        stars=2,
        minutes=6,
        stub="def repair(model):",
        measure=_growths,
        names=(
            "growth of m in nn.Linear(200, 500)",
            "in nn.Linear(500, 300)",
            "in nn.Linear(300, 600)",
        ),
        right=repair,
        tolerance=0.025,  # 5 standard errors for redrawn weights
        mistakes=(
            (_drawn_by_fan_out, "The variance is still 1/fan-out, but a unit sums over its inputs."),
            (
                _rescaled(lambda fan_in, fan_out: fan_out / fan_in**2),
                "You multiplied by fan-out/fan-in, the ratio of the variances; weights take its root.",
            ),
            (
                _rescaled(lambda fan_in, fan_out: fan_in / fan_out**2),
                "The other way round: more inputs than outputs ask for smaller weights, not larger ones.",
            ),
            (
                _rescaled(lambda fan_in, _: 1 / fan_in**2),
                "1/fan-in is to be the variance; you made it the standard deviation.",
            ),
            (
                _rescaled(lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
                "That averages both fans: with 200 inputs and 500 outputs the signal does not keep its size.",
            ),
            (
                _rescaled(lambda fan_in, fan_out: 1 / (fan_in * fan_out)),
                "Dividing by √fan-in presumes a standard deviation of 1; these have 1/√fan-out.",
            ),
            (
                _rescaled(lambda fan_in, _: 2 / fan_in),
                "2/fan-in doubles the second moment of a linear layer.",
            ),
        ),
        hints=(
            "Each `layer.weight` has the shape (fan_out, fan_in).",
            "Multiply by √(fan_out/fan_in), or draw anew with std 1/√fan_in.",
        ),
        because="Each layer has E w² = 1/fan_in now, and mean 0.",
        solution="The variance should be 1/fan_in and is 1/fan_out: multiply by √(fan_out/fan_in).",
    ),
    Function(
        statement="Write `share_within`: for linear networks with Gaussian weights, $\\operatorname{Var}(w) "
        "= 1/n$, predict the share (0 to 1) whose last RMS is within `factor` of the *median*, above or "
        "below. Treat $\\ln m$ as normal; `math.erf` or `statistics.NormalDist` help.",
        stars=2,
        minutes=10,
        stub="def share_within(width, depth, factor):",
        measure=_shares,
        names=tuple(f"share at width {n}, depth {depth}, factor {f:g}" for n, depth, f in _CASES),
        right=share_within,
        tolerance=0.02,  # the exact variance and 2L/n give shares that differ by 0.8 %
        mistakes=(
            (
                _share_of_m,
                "You took 2L/n, the variance of ln m; ln RMS is half of ln m, its variance a quarter.",
            ),
            (_share_of_variance, "You divided by the variance of ln RMS; take its root."),
            (_share_of_sum, "You took L/n; the variance of ln RMS is a quarter of 2L/n, that of ln m."),
            (
                _share_without_root,
                "erf(x) is the share within √2 x standard deviations; for x of them it is erf(x/√2).",
            ),
            (_share_on_one_side, "That is half of it: both sides count, above the median and below."),
            (_share_in_percent, "That is in per cent; a share goes from 0 to 1."),
            (_share_outside, "That is the share outside; asked is the one within."),
            (_share_below, "That is the share below factor · median: those too small count as well."),
            (_share_around_one, "You compare with RMS 1; the median is below that, and asked is the median."),
        ),
        hints=(
            "What is the standard deviation of ln RMS?",
            "√(L/2n), and |ln RMS − median| has to be below ln factor.",
        ),
        because="ln RMS is normal with variance L/(2n) around its median.",
        solution="Var ln RMS = Var(ln m)/4 = L/(2n), and a normal variable is within ±x of its median with "
        "probability erf(x/(σ√2)), x = ln factor:",
    ),
    Number(
        statement="Linear networks of width 50 and depth 100, Gaussian weights. You choose the gain (weights "
        "of standard deviation gain/$\\sqrt n$) so that the *median* RMS stays 1. What is then the *mean* of "
        "$m$ in the last layer, if the input has $m = 1$?",
        stars=3,
        minutes=6,
        answer=math.exp(-100 * _NARROW),
        tolerance=0.03,
        mistakes=(
            (1.0, "The mean is 1 at gain 1; you have raised the gain in 100 layers."),
            (math.exp(-50 * _NARROW), "That is gain^100, for the RMS; m is multiplied by gain²."),
            (math.exp(-200 * _NARROW), "ln m drifts by −L/n = −2; 2L/n = 4 is its variance."),
            (math.exp(100 * _NARROW), "That is the median of m before the repair; the gain has to rise."),
        ),
        hints=("Which gain makes up for the drift of ln m?", "gain² = e^(1/n), and E m = gain^(2L)."),
        because="The gain makes up for the drift of −L/n = −2, and lifts the mean by as much.",
        solution="The drift of ln m is −1/n per layer, so gain² = e^(1/50) and E m = gain^200 = e^2 = 7.4, "
        "by the exact drift 7.5. Median and mean cannot both be 1.",
    ),
    Experiment(
        statement="Width 128. Each weight is 0 with probability 15/16, else from $N(0, 1/8)$: the variance "
        "is $1/n$. Inputs are fresh, $N(0, 1)$. Measure $128 \\cdot \\operatorname{Var}(m'/m)$ over 20,000 "
        "linear layers or more, for these weights (`sparse`) and for $N(0, 1/128)$ (`normal`).",
        stars=3,
        minutes=10,
        answer={"normal": 2.0, "sparse": 2 + _EXCESS * 3 / 130},
        tolerance=0.05,  # 20,000 layers give either variance to about 1.2 %
        mistakes=(
            (
                {"normal": 2.0, "sparse": 2.0},
                "So it is for equal weights in both: is the kurtosis 48 in one?",
            ),
            (
                {"normal": 2.0, "sparse": 2 + _EXCESS / 128},
                "So it is for inputs of equal size, ±1; those asked for are normal, and some are large.",
            ),
            (
                {"normal": 2 / 128, "sparse": (2 + _EXCESS * 3 / 130) / 128},
                "These are the variances themselves; asked is 128 times each.",
            ),
            (
                {"normal": math.sqrt(2 * 128), "sparse": math.sqrt((2 + _EXCESS * 3 / 130) * 128)},
                "These are 128 times the standard deviations; asked is 128 times the variances.",
            ),
            (
                {"normal": 2.0, "sparse": (2 + _EXCESS * 3 / 130) / 16**2},
                "The weights that are left have to have variance 1/8, not 1/128.",
            ),
            (
                {"normal": 2 + _EXCESS * 3 / 130, "sparse": 2.0},
                "These two are in each other's place.",
            ),
        ),
        hints=(
            "The notebook's formula has κ − 3 in it; what is κ here?",
            "Draw W of (128, 128) and h of 128 numbers anew each time; note the mean square of Wh over that "
            "of h.",
        ),
        because="The kurtosis of a sparse weight is 3 · 16 = 48, of the order of n, so that the second term "
        "is no longer small beside the first.",
        solution="κ = 3 · 16 = 48, and n Var(m'/m) = 2 + (κ − 3) E Σh⁴/(Σh²)² = 2 + 45 · 3/130 = 3.04: half "
        "more noise per layer, although mean and variance of the weights are the same.",
    ),
    Open(
        statement="Plain networks of width 512 and depth 100 are trained, although 95 % of linear draws "
        "scatter over a factor $e^{\\pm0.6}$ in RMS around their median. Who or what repairs the "
        "difference, and when does it not get repaired? Answer in two or three sentences.",
        stars=2,
        minutes=5,
        hints=(
            "One factor for the whole network is harmless if something can undo it.",
            "What does the last layer learn first? What does a normalization do?",
        ),
        because="a factor of two in the logits is one number, which the last layer can learn in a few steps "
        "and Adam's steps do not feel; a norm layer removes it at once, and a saturating activation pulls it "
        "back. Nothing repairs it where it is far larger, at depth beyond width: then the first steps of "
        "training are too large in one network and too small in the next, at the same learning rate.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
