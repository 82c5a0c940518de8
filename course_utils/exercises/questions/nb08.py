"""Exercises of notebook 08: order, chaos, the edge between them, and how deep that lets a network be."""

import math
from collections.abc import Callable

import torch

from course_utils.activations import Activation, erf, gelu, sigmoid, tanh
from course_utils.exercises.asking import Choice, Function, Number, Open, Values, as_number
from course_utils.exercises.running import Unreadable
from course_utils.mean_field import (
    chi_1,
    critical_point,
    length_map,
    length_slope,
    output_second_moment,
)
from course_utils.network_laws import jacobian_spread

_ERF_GAIN, _ERF_BIAS = map(float, critical_point(erf, 2.0))
_ERF_MOMENT = float(output_second_moment(erf, 2.0))
_ERF_MEAN_SLOPE = 2 / math.sqrt(math.pi * (1 + 2 * 2.0))  # E erf'(z), z ~ N(0, 2)

_GELU_GAIN = float(output_second_moment(gelu, 1.0)) ** -0.5
_GELU_SLOPE = float(length_slope(gelu, 1.0, _GELU_GAIN))
_GELU_CHI = float(chi_1(gelu, 1.0, _GELU_GAIN))


def _settled(activation: Activation, gain: float) -> float:
    """Return q* without biases, where the length map soon settles."""
    q = 1.0
    for _ in range(30):
        q = float(length_map(activation, q, gain))
    return q


_LEAKY = 0.5**2 / (1 + 0.5**2)  # the share of ReLU's epsilon^(3/2) that a leaky ReLU of slope 1/2 has

_SIGMOID_Q = _settled(sigmoid, 10.15)
_SIGMOID_SPREAD = jacobian_spread(sigmoid, _SIGMOID_Q, orthogonal=True)
_SIGMOID_LENGTH = -1 / math.log(length_slope(sigmoid, _SIGMOID_Q, 10.15))


def _gelu_deviation(layers: int) -> float:
    """Return how many times further than at the start q is from 1, from q = 1.001 on."""
    q = 1.001
    for _ in range(layers):
        q = float(length_map(gelu, q, _GELU_GAIN))
    return (q - 1) / 0.001


def _gain_at(chi: float) -> float:
    """Return the gain of the tanh network with biases of std 0.3 that has this chi_1 at its fixed point."""
    low, high = 0.1, 5.0  # of q*, which rises with the gain, as chi_1 does
    for _ in range(40):
        q = (low + high) / 2
        gain = math.sqrt(chi / chi_1(tanh, q))
        low, high = (q, high) if length_map(tanh, q, gain, 0.3) > q else (low, q)
    return gain


def _interval(ratio: float) -> tuple[float, float]:
    """Return the gains at which chi_1^100 is 1/ratio and ratio."""
    return _gain_at(ratio**-0.01), _gain_at(ratio**0.01)


_LOWEST, _HIGHEST = _interval(900.0)
_EDGE = _gain_at(1.0)


def _pair_correlations(next_correlation) -> Values:
    """Return the next c for two settings of ReLU, one of tanh, and one of the sigmoid.

    Raises: Unreadable unless phi gets the pairs of 100,000 units.
    """
    settings = (
        (torch.relu, 0.5, 3.0, 1.2, 0.7),
        (torch.relu, -0.3, 0.5, 1.8, 0.4),
        (torch.tanh, 0.8, 0.3, 1.4, 0.3),
        (torch.sigmoid, -0.5, 4.0, 2.0, 0.4),  # it is not 0 at 0
    )
    return tuple(_of_many_units(next_correlation, *setting) for setting in settings)


def _of_many_units(next_correlation: Callable, phi: Callable, *setting: float) -> float:
    """Return the next c. Raises: Unreadable unless phi gets the pairs of 100,000 units."""
    seen = 0

    def counting(z):
        nonlocal seen
        seen += z.numel()
        return phi(z)

    found = as_number(next_correlation(counting, *setting))
    if seen < 200_000:
        raise Unreadable(f"phi got {seen:,} numbers; draw the pairs of at least 100,000 units")
    return found


def next_correlation(phi, c, q, gain, bias_std):
    """Return the correlation of two inputs' pre-activations in the next layer, from 200,000 drawn units."""
    u, v = torch.randn(2, 200_000)
    first = phi(math.sqrt(q) * u)
    second = phi(math.sqrt(q) * (c * u + math.sqrt(1 - c**2) * v))
    covariance = gain**2 * (first * second).mean() + bias_std**2
    return covariance / (gain**2 * (first * first).mean() + bias_std**2)


def _sampler(
    scale: Callable = math.sqrt,
    across: Callable = lambda c: math.sqrt(1 - c**2),
    factor: Callable = lambda gain: gain**2,
    bias: Callable = lambda b: b**2,
    shared: float = 1.0,
    centred: float = 0.0,
    size: Callable = lambda q, first, second, bias: first + bias,
) -> Callable:
    """Return a `next_correlation` in which one step may be another one."""

    def result(phi, c, q, gain, bias_std):
        u, v = torch.randn(2, 200_000)
        first, second = phi(scale(q) * u), phi(scale(q) * (c * u + across(c) * v))
        mean = centred * first.mean()
        products, *squares = (
            factor(gain) * ((one - mean) * other).mean()
            for one, other in ((first, second), (first, first), (second, second))
        )
        return (products + shared * bias(bias_std)) / size(q, *squares, bias(bias_std))

    return result


QUESTIONS = (
    Number(
        statement="In a wide network at its fixed point $\\chi_1 = 0.9$. Over how many layers does a "
        "*squared* gradient shrink by a factor of 100?",
        stars=1,
        minutes=3,
        answer=math.log(100) / -math.log(0.9),
        mistakes=(
            (math.log(10) / -math.log(0.9), "After so many layers the square has shrunk by 10 only."),
            (
                math.log(1e4) / -math.log(0.9),
                "So many layers take 100 from the gradient, 10,000 from the square.",
            ),
            (1 / -math.log(0.9), "That is the depth scale, after which a factor of e is gone."),
            (math.log(100) / 0.1, "That takes ln 0.9 for −0.1, its first order, which is 5 % off."),
            (0.99 / 0.1, "Layers multiply: what is left shrinks by 10 % of itself, not of the beginning."),
        ),
        hints=(
            "Each layer multiplies the squared gradient by the same number.",
            "0.9 to the power L is 0.01.",
        ),
        because="0.9 to the power of 43.7 is 1/100.",
        solution="0.9^L = 1/100, so L = ln 100 / |ln 0.9| = 43.7: ln 100 = 4.6 depth scales of 9.5 layers.",
    ),
    Choice(
        statement="A wide tanh network of 60 layers has an RMS of 0.7 in every layer. Two inputs have the "
        "correlation 0.95 in layer 1, and 0.3 from layer 40 on. What does a squared gradient do, on average, "
        "on its way from the last layer to the first: `grows`, `shrinks`, `stays`, or `cannot be said`?",
        stars=2,
        minutes=4,
        options={
            "grows": "Inputs that were close have parted: c = 1 repels, so its slope χ₁ exceeds 1; and the "
            "gradient is multiplied by the same χ₁.",
            "shrinks": "With χ₁ below 1 the correlation 0.95 would have risen to 1, and it fell to 0.3.",
            "stays": "A steady RMS of 0.7 is a matter of lengths; look at what happened to the pair.",
            "cannot be said": "The RMS of 0.7 alone says nothing; but the pair went from 0.95 to 0.3.",
        },
        answer="grows",
        hints=(
            "What is the slope of the correlation map at c = 1?",
            "Does c = 1 attract this pair or repel it?",
        ),
        solution="The pair moves away from c = 1, so the slope there, χ₁, is above 1. A squared gradient is "
        "multiplied by χ₁ in every layer on its way back: it grows.",
    ),
    Number(
        statement="A wide network with $\\varphi = \\operatorname{erf}$, Gaussian weights and biases "
        "shall be critical with $q^* = 2$. Which standard deviation must its biases have?",
        stars=2,
        minutes=8,
        answer=_ERF_BIAS,
        mistakes=(
            (_ERF_BIAS**2, "That is their variance."),
            (
                math.sqrt(2 - math.pi / 4 * _ERF_MOMENT),
                "You took the gain that is critical at q = 0; at q = 2 slopes are smaller.",
            ),
            (
                math.sqrt(2 - _ERF_GAIN * _ERF_MOMENT),
                "The gain enters the length map by its square, 2.36.",
            ),
            (
                math.sqrt(2 - _ERF_MOMENT / _ERF_MEAN_SLOPE),
                "χ₁ has the mean of the squared slope, not the mean slope.",
            ),
            (_ERF_GAIN, "That is the gain. Which biases does it need to keep q at 2?"),
            (_ERF_GAIN**2, "That is the squared gain, σ_w²; σ_b is asked for."),
        ),
        hints=(
            "Two conditions: χ₁ = 1 gives the gain, and q = 2 must stay where it is.",
            "σ_w² E φ'(z)² = 1 with z ~ N(0, 2); then σ_b² = 2 − σ_w² E φ(z)².",
        ),
        because="The squared gain is 2.356, which leaves 0.609 of q = 2 to the biases: a std of 0.780.",
        solution="E φ'² = 4/(3π) at q = 2, so σ_w² = 3π/4 = 2.356. E φ² = (2/π) arcsin 0.8 = 0.590, and "
        "σ_b² = 2 − 2.356 · 0.590 = 0.609, σ_b = 0.780. (`mean_field.critical_point` gives both.)",
    ),
    Function(
        statement="Write `next_correlation`: two inputs' pre-activations have second moment `q` and "
        "correlation `c`; return the correlation in the next wide layer, weights of `gain` and biases of "
        "`bias_std`, by drawing the pairs of at least 100,000 units. `phi` takes and returns tensors.",
        stars=2,
        minutes=10,
        stub="def next_correlation(phi, c, q, gain, bias_std):",
        measure=_pair_correlations,
        names=(
            "the next c of ReLU at (0.5, 3, 1.2, 0.7)",
            "of ReLU at (-0.3, 0.5, 1.8, 0.4)",
            "of tanh at (0.8, 0.3, 1.4, 0.3)",
            "of sigmoid at (-0.5, 4, 2, 0.4)",
        ),
        right=next_correlation,
        tolerance=0.03,  # 4 standard errors of 100,000 pairs where they know least
        mistakes=(
            (_sampler(bias=lambda b: 0.0), "The bias is missing: it makes any two inputs more alike."),
            (
                _sampler(shared=0.0),
                "Both inputs meet the same bias: its variance belongs into the covariance, too.",
            ),
            (
                _sampler(centred=1.0),
                "You subtracted the mean of the outputs, which for ReLU is not 0: the covariance of what "
                "comes next has E h h' in it.",
            ),
            (
                _sampler(across=lambda c: 1 - c),
                "c u + (1 − c) v has not the variance 1: the parts add in squares.",
            ),
            (
                _sampler(
                    across=lambda c: 1 - c,
                    size=lambda q, first, second, bias: math.sqrt((first + bias) * (second + bias)),
                ),
                "The partner c u + (1 − c) v is shorter than u: dividing by both lengths does not repair it.",
            ),
            (
                _sampler(bias=lambda b: b),
                "bias_std is a standard deviation: covariances take its square.",
            ),
            (
                _sampler(size=lambda q, first, second, bias: first),
                "The bias is part of the second moment, too, by which you divide.",
            ),
            (
                _sampler(size=lambda q, first, second, bias: q),
                "You divided by q, the second moment of this layer; that of the next one is another.",
            ),
            (_sampler(scale=lambda q: q), "q is a second moment: pre-activations have the std √q."),
            (
                _sampler(factor=lambda gain: gain),
                "The gain is a standard deviation: covariances take its square.",
            ),
        ),
        hints=(
            "Two normal numbers for each unit are all that is needed.",
            "z₁ = √q u and z₂ = √q (c u + √(1 − c²) v), with independent u, v ~ N(0, 1).",
        ),
        because="It agrees with the double integral at four places, of ReLU, tanh and sigmoid.",
        solution="Draw (z₁, z₂), and form σ_w² E φ(z₁)φ(z₂) + σ_b² over σ_w² E φ(z₁)² + σ_b²:",
    ),
    Number(
        statement="A wide tanh network has biases of standard deviation 0.3. By the rule "
        "$L \\le 6.8\\,\\xi_\\nabla$, that is $|\\ln\\chi_1| \\le \\ln 900 / L$, which gains may it have "
        "with $L = 100$ layers? Give the width of that interval.",
        stars=2,
        minutes=8,
        answer=_HIGHEST - _LOWEST,
        tolerance=0.02,
        mistakes=(
            (
                _interval(30.0)[1] - _interval(30.0)[0],
                "The rule limits the squared gradient by 900; you allowed it a factor of 30.",
            ),
            (_HIGHEST - _EDGE, "That is the part above the edge; the ordered side counts, too."),
            (_EDGE - _LOWEST, "That is the part below the edge; the chaotic side counts, too."),
            (_HIGHEST**2 - _LOWEST**2, "That is an interval of σ_w²; the gain is σ_w."),
            (_HIGHEST, "That is the upper end, not the width."),
            (_LOWEST, "That is the lower end, not the width."),
            (_EDGE, "That is the edge, where χ₁ = 1; the rule allows an interval around it."),
        ),
        hints=(
            "Find q*(gain) first, then χ₁(gain), then two gains by bisection.",
            "χ₁ may lie between exp(−0.068) and exp(0.068); `mean_field` has `fixed_point` and `chi_1`.",
        ),
        because="Gains from 1.29 to 1.52 around the edge at 1.40: twice the depth would halve that.",
        solution="χ₁ may be 900^(±1/100) = 0.934 to 1.070. With q* the fixed point for biases of 0.3, that "
        "is the case for gains from 1.292 to 1.517, an interval of 0.225.",
    ),
    Number(
        statement="Infinitely wide GELU networks without biases get the gain that keeps $q = 1$. One of them "
        "starts at $q = 1.001$. How many times further from 1 is its $q$ after 20 layers?",
        stars=3,
        minutes=8,
        answer=_gelu_deviation(20),
        tolerance=0.02,
        mistakes=(
            (1.0, "q = 1 is kept exactly, 1.001 is not: what is the slope of the length map at 1?"),
            (_GELU_CHI**20, "χ₁ is for directions and gradients; lengths take the slope of the length map."),
            (_GELU_SLOPE, "That is one layer."),
            (_gelu_deviation(19), "That is what 19 layers do."),
            (_gelu_deviation(20) * 0.001, "So far is q from 1; how many times 0.001 is that?"),
            (_GELU_SLOPE**40, "q is a second moment already: the slope is not to be squared."),
        ),
        hints=(
            "A fixed point may attract or repel: iterate the map, or take its slope.",
            "The gain is E φ(Z)² to the power −1/2, and `mean_field.length_slope` knows the rest.",
        ),
        because="The slope of the length map at q = 1 is 1.144, and 20 layers make 15 of that: the gain that "
        "'keeps' q stands on its tip.",
        solution="With gain 1.534 the slope dq'/dq at 1 is 1.144. 1.144^20 = 14.8: the fixed point repels.",
    ),
    Number(
        statement="Two inputs go through an infinitely wide leaky ReLU network of slope $a = \\frac12$ on "
        "the left, without biases, with the gain that keeps lengths. Its angles shrink like "
        "$\\theta_l \\approx C/l$. What is $C$? (For ReLU it is $3\\pi$.)",
        stars=3,
        minutes=12,
        answer=3 * math.pi / _LEAKY,
        tolerance=0.02,
        mistakes=(
            (3 * math.pi, "That is ReLU's constant; with a = ½ the kink is weaker, and angles live longer."),
            (6 * math.pi, "1 − a = ½ is the size of the kink, but covariances take products of two outputs."),
            (
                12 * math.pi,
                "(1 − a)² = ¼ is twice the kink's part of the covariance; divide by 1 + a², twice E φ(z)².",
            ),
            (
                75 * math.pi,
                "The loss per layer goes with θ²: the angle is 1 over its factor, not over its square.",
            ),
            (
                3 * math.pi / math.sqrt(_LEAKY),
                "1/√s of 3π would be right if 1 − c fell like 1/l; here the angle does.",
            ),
        ),
        hints=(
            "Write φ(z) = a z + (1 − a) relu(z), and find E φ(z)φ(z').",
            "c' = (2ac + (1 − a)² k(c))/(1 + a²), with ReLU's map k.",
        ),
        because="The kink's share is (1 − a)²/(1 + a²) = 1/5, so that angles live five times longer: 15π.",
        solution="E φ(z)φ(z')/q = ac + (1 − a)² k(c)/2, over (1 + a²)/2: c' = c + s (k(c) − c), s = "
        "(1 − a)²/(1 + a²) = 1/5. So θ' = θ − s θ²/(3π), 1/θ grows by s/(3π) in a layer, and θ ≈ 15π/l.",
    ),
    Open(
        statement="A sigmoid network without biases has $\\chi_1 = 1$ at gain 10.15. Is that edge as good a "
        "place to train at as that of a tanh network with $q^* = 0.1$? Look at $q^*$, and at the spread of "
        "squared slopes; answer in a sentence or two.",
        stars=3,
        minutes=8,
        hints=(
            "How large are most pre-activations there, and how large is the slope of a sigmoid there?",
            "`mean_field.fixed_point(sigmoid, 10.15)`, and the relative variance of φ'(z)² at that q.",
        ),
        because=f"q* is {_SIGMOID_Q:.0f}, so most units are saturated, and the few near 0 carry the "
        f"gradient: squared slopes have a relative variance of {_SIGMOID_SPREAD:.1f} in each layer, and "
        "χ₁ = 1 is the mean of very unequal directions. Lengths are forgotten within a layer, "
        f"ξ_q = {_SIGMOID_LENGTH:.1f}. At q* = 0.1 tanh is nearly linear and treats directions nearly alike: "
        "χ₁ = 1 is necessary, not sufficient.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
