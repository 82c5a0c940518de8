"""Exercises of notebook 01: how one layer changes the size of a signal, and where number formats end."""

import math
from statistics import fmean

import torch

from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values, as_number
from course_utils.exercises.running import Unreadable
from course_utils.mean_field import crossing_layer

_HALF, _SINGLE = (torch.finfo(dtype).max for dtype in (torch.float16, torch.float32))
_TINY = 2.0**-24  # the smallest positive float16
_SHARED = 0.5  # the variance of what all weights of a row have in common
_NETWORKS = (  # widths, std, largest number
    ([100, 900] * 30, 0.5, _SINGLE),
    ([2000, 50, 300] * 12, 0.3, _HALF),
    ([64, 1000] * 15, 0.2, _HALF),
    ([1024] * 30, 0.06, 448.0),
    ([400] * 12 + [25] * 6 + [400] * 20, 0.1, 448.0),  # beyond, below and beyond again
    ([2500] * 4 + [25] * 2 + [2500] * 9, 0.1, 300.0),  # beyond by a layer whose outputs are few
    ([900, 100, 100], 0.5, 10.0),  # in the first layer
    ([100] * 6, 0.2, 20.0),  # in the last
)


def _overflows(overflow_layer) -> Values:
    """Return the layers that it names for eight networks."""
    return tuple(as_number(overflow_layer(list(widths), *rest)) for widths, *rest in _NETWORKS)


def overflow_layer(widths, std, largest):
    """Return the number of the first layer whose predicted RMS is beyond `largest`."""
    rms = 1.0
    for layer, fan_in in enumerate(widths[:-1], start=1):
        rms *= math.sqrt(fan_in) * std
        if rms > largest:
            return layer


def _squared(widths, std, largest):
    return overflow_layer(widths, std, math.sqrt(largest))


def _linear_in_width(widths, std, largest):
    return overflow_layer([width**2 for width in widths], std, largest)


def _from_fan_out(widths, std, largest):
    return overflow_layer([*widths[1:], widths[0]], std, largest)


def _from_average(widths, std, largest):
    return overflow_layer([fmean(widths)] * len(widths), std, largest)


def _from_zero(widths, std, largest):
    return overflow_layer(widths, std, largest) - 1


def _one_more(widths, std, largest):
    return overflow_layer(widths, std, largest) + 1


def _last_crossing(widths, std, largest):
    rms, below = 1.0, 0
    for layer, fan_in in enumerate(widths[:-1], start=1):
        rms *= math.sqrt(fan_in) * std
        below = layer if rms <= largest else below
    return below + 1


def _bad_layers(layer_that_fails) -> Values:
    """Return the layers that it names: all entries grow alike, one grows alone, one moves and grows, nan.

    Raises: Unreadable if it returns None.
    """
    eye, alone = torch.eye(512), torch.arange(512) == 5
    equal = [1e36 * eye, eye, 1e5 * eye], torch.ones(512)
    single = [torch.where(alone, 1e30, 1.0).diag()] * 5, torch.where(alone, -1e10, 1.0)
    shift = torch.tensor([1e20, 1.0, 1.0, 1e20, 1.0, 1e20, 1e20, 1.0]).diag(1)
    moving = [*[shift] * 4, torch.ones(9, 9), torch.eye(9)], torch.eye(9)[4]
    opposed = torch.tensor([[2.0, -2.0], [0.0, 1.0]])  # inf - inf is nan
    without_inf = [2e38 * torch.eye(2), opposed, torch.eye(2)], torch.ones(2)
    found = [layer_that_fails([*matrices], x) for matrices, x in (equal, single, moving, without_inf)]
    if found[-1] is None:
        raise Unreadable("where layer 2 gives nan (in float32), and no inf, your function returns None")
    return tuple(as_number(layer or 0) for layer in found)


def layer_that_fails(matrices, x):
    """Return the number, from 1, of the first layer with an entry that is not finite."""
    for layer, matrix in enumerate(matrices, start=1):
        x = matrix @ x
        if not torch.isfinite(x).all():
            return layer


def _layer_where(fails, multiply=torch.matmul):
    """Return a function as `layer_that_fails`, with another test of a layer's entries, or another product."""

    def find(matrices, x):
        for layer, matrix in enumerate(matrices, start=1):
            x = multiply(matrix, x)
            if fails(x):
                return layer

    return find


def _bad_from_zero(matrices, x):
    return layer_that_fails(matrices, x) - 1


def _bad_one_more(matrices, x):
    return layer_that_fails(matrices, x) + 1


def _not_all_finite(x):
    return not torch.isfinite(x).all()


QUESTIONS = (
    Number(
        statement="A linear layer with 400 inputs has weights $N(0, 0.1^2)$ and no biases. Its input has RMS "
        "3. Which RMS do you predict for its output?",
        stars=1,
        minutes=2,
        answer=3 * math.sqrt(400) * 0.1,
        mistakes=(
            (
                3 * 400 * 0.1,
                "400 terms with random signs add up to √400 times one of them, not to 400 times.",
            ),
            (3 * 400 * 0.1**2, "nσ² = 4 is the factor on the second moment; the RMS is its root."),
            (9 * 400 * 0.1**2, "That is the second moment of the output; its root was asked for."),
            (3 * 0.1, "That is the size of one product; an output adds 400 of them."),
        ),
        hints=("One layer multiplies the RMS by √n σ.", "√400 · 0.1 is the factor on the input's RMS."),
        because="The layer multiplies the RMS by √400 · 0.1 = 2.",
        solution="E z² = nσ² m = 400 · 0.01 · 9 = 36, and its root is 6.",
    ),
    Number(
        statement="A data set has 100 features. You standardize each; 19 of them never change and become 0. "
        "A linear network of width $n = 100$ with $\\operatorname{Var}(w) = 1/n$ and no biases follows. "
        "Which RMS do you predict after 40 layers? (Root of the mean of $m$ over weights and inputs.)",
        stars=2,
        minutes=3,
        answer=math.sqrt(81 / 100),
        mistakes=(
            (81 / 100, "That is the mean square of the inputs; the RMS is its root."),
            (1.0, "19 of the 100 features are 0, so the inputs do not have mean square 1."),
            (0.9**40, "0.9 is the RMS of the input, and each layer keeps it."),
            (0.9**41, "The constant features cost something once, at the input, not again in each layer."),
            (math.sqrt(19 / 100), "That is the root of the share of features that are 0: take the others."),
        ),
        hints=("What is the mean square of the inputs?", "81 features have mean square 1, 19 have 0."),
        because="√(81/100) = 0.9 at the input, and a factor of 1 in each layer.",
        solution="The inputs have mean square 81/100; with nσ² = 1 it stays, and its root is 0.9.",
    ),
    Number(
        statement="Linear layers of width 1,024 have weights $N(0, 0.02^2)$; the input has RMS 1. Which is "
        "the first layer whose predicted RMS is below $2^{-24}$, the smallest positive float16?",
        stars=2,
        minutes=4,
        answer=math.ceil(crossing_layer(_TINY, 0.64)),
        mistakes=(
            (math.floor(crossing_layer(_TINY, 0.64)), "The RMS of that layer is still above 2^(−24)."),
            (
                math.ceil(crossing_layer(_TINY, 0.64)) + 1.0,
                "One too many: the first computed layer has number 1.",
            ),
            (
                math.ceil(crossing_layer(_TINY, 0.64**2)),
                "You multiplied by nσ² = 0.41, the factor on the second moment, not on the RMS.",
            ),
            (
                math.ceil(crossing_layer(2.0**-14, 0.64)),
                "That is where normal float16 numbers end, 2^(−14); smaller, subnormal ones follow.",
            ),
            (
                math.ceil(crossing_layer(_HALF, 1024 * 0.02)),
                "With a factor nσ = 20.5 it would overflow there; is it n or √n that counts?",
            ),
        ),
        hints=(
            "By which factor does a layer multiply the RMS?",
            "√1024 · 0.02 = 0.64; which power is 2^(−24)?",
        ),
        because="ln 2^(−24) / ln 0.64 = 37.3, and the next layer is below.",
        solution="√n σ = 0.64 per layer, and 0.64^l = 2^(−24) at l = 37.3: layer 38 is the first below.",
    ),
    Number(
        statement="A linear network has width 400 and 150 layers, its input RMS 1. Which weight standard "
        "deviation $\\sigma$ takes the predicted RMS exactly to 65,504, the largest float16, in the last "
        "layer?",
        stars=2,
        minutes=4,
        answer=_HALF ** (1 / 150) / math.sqrt(400),
        mistakes=(
            (1 / math.sqrt(400), "That keeps the RMS at 1; by how much may one of 150 layers exceed that?"),
            (
                _HALF ** (1 / 300) / math.sqrt(400),
                "So the second moment gets to 65,504, and the RMS only to its root, 256.",
            ),
            (_HALF ** (2 / 150) / 400, "That is the variance σ²; its root was asked for."),
            (_HALF ** (1 / 150), "That is √n σ, the growth per layer, with n = 400."),
            (_HALF ** (1 / 150) / 400, "You divided by n = 400, but the growth per layer is √n σ."),
            (_SINGLE ** (1 / 150) / math.sqrt(400), "That is the limit for float32; float16 ends at 65,504."),
        ),
        hints=("What may the growth s per layer be?", "s^150 = 65,504, and s = √400 σ."),
        because="s = 65,504^(1/150) = 1.077, only 8 % more than what keeps the signal.",
        solution="s^150 = 65,504 gives s = 1.0767, and σ = s/√400 = 0.0538.",
    ),
    Choice(
        statement="Signals start at RMS 1 and double in each of 60 layers. They are to be stored in 16 bits: "
        'as bfloat16 or as float16? And what does the choice pay with? Answer "bfloat16, digits", '
        '"bfloat16, memory", "float16, digits" or "either, nothing".',
        stars=2,
        minutes=3,
        options={
            "bfloat16, digits": "2^60 is far beyond float16's 65,504; bfloat16 reaches 10^38 with the "
            "exponent of float32, and has 8 binary digits where float16 has 11.",
            "bfloat16, memory": "Both have 16 bits: what one spends on the exponent it lacks elsewhere.",
            "float16, digits": "float16 ends at 65,504, about 2^16; how large is the signal after 60 layers?",
            "either, nothing": "Equal bits are not equal ranges: the ranges are set by the exponent's bits.",
        },
        answer="bfloat16, digits",
        hints=("Compare the largest numbers in the notebook's table with 2^60.", "2^60 is 1.2e18."),
        solution="2^60 = 1.2e18: float16 (up to 6.6e4) is left in layer 16, bfloat16 (up to 3.4e38) never. "
        "Its numbers are 1/128 apart, relative, those of float16 1/1024: eight times coarser. "
        "`torch.tensor(1.003).bfloat16()` is 1.",
    ),
    Function(
        statement="Layers need not be equally wide. Write `overflow_layer`: `widths` lists the size of the "
        "input (RMS 1) and of each layer, `std` is that of all weights. Return the number, from 1, of the "
        "first linear layer whose predicted RMS is larger than `largest`.",
        stars=2,
        minutes=8,
        stub="def overflow_layer(widths, std, largest):",
        measure=_overflows,
        names=(
            "layer with widths 100/900",
            "with widths 2000/50/300",
            "with widths 64/1000",
            "with width 1024 throughout",
            "with widths 400, 25 and 400",
            "with widths 2500 and 25",
            "with widths 900, 100, 100",
            "with six widths of 100",
        ),
        right=overflow_layer,
        tolerance=0.001,
        mistakes=(
            (_from_fan_out, "You took the layer's own width: a unit sums over its inputs, the layer before."),
            (_squared, "You let the second moment reach `largest`; the RMS, its root, is what is compared."),
            (_linear_in_width, "A layer multiplies the RMS by √n σ; yours multiplies by nσ."),
            (_from_average, "With widths 100 and 900 the factors are 5 and 15, not twice that of 500."),
            (_from_zero, "You count from 0: the first layer has number 1."),
            (_one_more, "One too many: the first computed layer has number 1."),
            (
                _last_crossing,
                "Where layers are narrow the RMS falls again; asked is the first time that it is too large.",
            ),
        ),
        hints=(
            "Each layer has its own factor; which width enters?",
            "Multiply the RMS by √(fan_in) · std, layer by layer, and compare.",
        ),
        because="Each factor is √fan_in σ with the width of the layer before.",
        solution="The factor of a layer is √fan_in · std, fan_in being the width before it; multiply until "
        "the product is beyond `largest`:",
    ),
    Function(
        statement="Write `layer_that_fails`: multiply the vector `x` by one of the `matrices` after the "
        "other, and return the number, from 1, of the first layer whose output has an entry that is not "
        "finite.",
        stars=2,
        minutes=6,
        stub="def layer_that_fails(matrices, x):",
        measure=_bad_layers,
        names=(
            "layer where all 512 entries grow alike",
            "layer where one entry grows alone",
            "layer where the matrices are not symmetric",
            "layer with 2e38 before it, and then nan",
        ),
        right=layer_that_fails,
        tolerance=0.01,
        mistakes=(
            (
                _layer_where(lambda x: not x.std().isfinite()),
                "A sum or a standard deviation can overflow before its numbers do; test the numbers.",
            ),
            (
                _layer_where(lambda x: not x.norm().isfinite()),
                "A norm, mean square or variance can overflow before its numbers do; test the numbers.",
            ),
            (
                _layer_where(lambda x: x.isnan().any()),
                "An overflow may give inf without any nan; here nan comes only later.",
            ),
            (
                _layer_where(lambda x: not x.isfinite().any()),
                "One entry of 512 that is inf is enough; yours waits until all are.",
            ),
            (_bad_from_zero, "You count from 0: the first layer has number 1."),
            (_bad_one_more, "One too many: the output of the first matrix is layer 1."),
            (
                _layer_where(_not_all_finite, lambda matrix, x: x @ matrix),
                "The order: a layer's output is Wx, the sums over the rows of W; yours sums over columns.",
            ),
            (
                _layer_where(_not_all_finite, torch.mul),
                "Multiply x itself, by `W @ x`: neither entry by entry, `W * x`, nor the matrices first.",
            ),
        ),
        hints=(
            "Which test does the section on the layer of the overflow end with?",
            "`torch.isfinite(x).all()`.",
        ),
        because="You looked at the entries themselves, at all of them, for inf and nan.",
        solution="Test all entries for inf and nan, not a statistic of them:",
    ),
    Experiment(
        statement="Let $W_{ik} = (a_i + b_{ik})/\\sqrt2$ with all $a_i, b_{ik}$ from $N(0, 1)$: the weights "
        "of a row share $a_i$. Measure $\\mathbb E z_i^2$ for $n = 100$, over 100,000 rows or more, for "
        "inputs that are all 1 (`ones`), and for fresh inputs from $N(0, 1)$ for each row (`normal`).",
        stars=3,
        minutes=8,
        answer={"ones": 100 * (1 - _SHARED) + 100**2 * _SHARED, "normal": 100.0},
        tolerance=0.04,  # z² of 100,000 rows is known to 0.4 % (ones) and 0.7 % (normal)
        mistakes=(
            (
                {"ones": 100.0, "normal": 100.0},
                "So it is for 100 independent weights per row: all of a row have to share one a.",
            ),
            (
                {"ones": 100.0**2, "normal": 100.0},
                "So it is if the 100 weights of a row are equal: each has a part b of its own, too.",
            ),
            (
                {"ones": 2 * (50 + 100**2 / 2), "normal": 200.0},
                "These weights have variance 2: a + b has to be divided by √2.",
            ),
            (
                {"ones": math.sqrt(50 + 100**2 / 2), "normal": 10.0},
                "That is the RMS of z; asked is the mean of z².",
            ),
            (
                {"ones": 50 + 100**2 / 2, "normal": 50 + 100**2 / 2},
                "The second is the first again: draw fresh inputs N(0, 1) for each row.",
            ),
            (
                {"ones": 100.0, "normal": 100 * (1 - _SHARED) + 100**2 * _SHARED},
                "These two are in each other's place.",
            ),
        ),
        hints=(
            "z is a/√2 times the sum of the inputs, plus the sum of b h/√2.",
            "Draw a (rows, 1), b (rows, 100), h (rows, 100).",
        ),
        because="The shared half of the variance multiplies (Σh)², which is n² for ones and on average only "
        "n for independent inputs of mean 0: fresh signs in h can do what those in W should.",
        solution="E z² = ½(Σh)² + ½Σh². For ones that is ½·100² + ½·100 = 5050, half of the n² law; for "
        "independent inputs of mean 0 both sums are 100, and so is E z².",
    ),
    Number(
        statement="Break (I) a little: weights $N(2/n, 1/n)$, not $N(0, 1/n)$. Linear layers without biases, "
        "$n \\to \\infty$, the input is all 1. Which RMS do you predict after 10 layers?",
        stars=3,
        minutes=8,
        answer=math.sqrt(sum(4**k for k in range(11))),
        tolerance=0.02,
        mistakes=(
            (1.0, "So it would be with mean 0: here 2/n, times n entries of equal sign, adds up to 2."),
            (
                math.sqrt(sum(4**k for k in range(10))),
                "That is the spread without the mean; the RMS counts both.",
            ),
            (2.0**10, "That is the mean of a unit; the random part of the weights adds a spread to it."),
            (
                math.sqrt(5) ** 10,
                "A factor of √5 holds in layer 1; later only part of the second moment is squared mean.",
            ),
            (float(sum(4**k for k in range(11))), "That is the second moment; the RMS is its root."),
        ),
        hints=(
            "Follow two numbers: the mean M over the units, and the second moment m.",
            "M' = 2M, and m' = M'² + m.",
        ),
        because="The mean doubles per layer, and each layer passes its second moment on as variance.",
        solution="M_l = 2^l, and the random part adds Var(z) = n (1/n) m: m_l = 4^l + m_(l−1). So m_10 = 1 + "
        "4 + ... + 4^10 = (4^11 − 1)/3 = 1,398,101, and RMS = 1182: a mean of 2/n, tiny beside the standard "
        "deviation 1/√n, rules the deep network.",
    ),
    Open(
        statement="A colleague's 60-layer network prints `nan` before the first step of training, in "
        "float16. In which order would you look for the reason, and what would each finding tell? Two or "
        "three sentences.",
        stars=2,
        minutes=5,
        hints=(
            "nan is never the first thing to go wrong.",
            "What does the same network do in float64, and from which layer on is it beyond float16?",
        ),
        because="first the inputs (finite? mean square near 1?), then the first layer with an entry that is "
        "not finite, by isfinite(x).all(), since nan follows an inf. Run the same weights in float64 and "
        "print the RMS by layer: a straight line of ln RMS says that the weights' scale is wrong, by a "
        "factor e^slope in each layer, and no format saves that for long; a moderate RMS that merely passes "
        "65,504 says that the format is too small, and bfloat16 or float32 would do.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
