"""Exercises of notebook 04: what ReLU does to the second moment, and the 2 that makes up for it."""

import math

from course_utils.activations import relu
from course_utils.exercises.asking import Function, Number, Open, Values
from course_utils.exercises.trying import check_law, drawn, filled
from course_utils.initializers import calculate_gain
from course_utils.mean_field import output_second_moment
from course_utils.network_laws import exact_log_growth

_MEAN = 2 / math.sqrt(2 * math.pi)  # of relu(z), z ~ N(0, 4)
_VARIANCE = output_second_moment(relu, 4.0) - _MEAN**2
_PRELU = calculate_gain("leaky_relu", 0.5)
_TWENTYFOLD = math.log(20) / math.log(math.sqrt(2) / _PRELU)
_NOISE = exact_log_growth(relu, math.sqrt(2), 256)[1]  # of ln m in one layer


def _he_moments(he_uniform_) -> Values:
    """Return fan_in times mean(w²) over 2, of a matrix and of a kernel."""
    found = []
    for shape in ((150, 400), (80, 44, 3, 5)):
        w = filled(he_uniform_, *shape)
        check_law([w], kurtosis=1.8)  # one by one, for they start from one seed
        found.append(w[0].numel() * w.square().mean().item() / 2)
    return tuple(found)


def he_uniform_(tensor, generator):
    """Fill a weight with He's uniform law."""
    fan_in = tensor[0].numel()
    bound = math.sqrt(6 / fan_in)
    return tensor.uniform_(-bound, bound, generator=generator)


def _uniform_of(bound):
    """Return an initializer U(-b, b) whose b follows from the shape."""
    return lambda tensor, generator: tensor.uniform_(-1, 1, generator=generator).mul_(bound(tensor.shape))


QUESTIONS = (
    Number(
        statement="A unit has $z \\sim N(0, 4)$. What is $\\mathbb E\\,\\operatorname{relu}(z)^2$?",
        stars=1,
        minutes=2,
        answer=output_second_moment(relu, 4.0),
        mistakes=(
            (output_second_moment(relu, 2.0), "In N(0, 4) the 4 is the variance: E z² is 4, not 2."),
            (math.sqrt(output_second_moment(relu, 4.0)), "That is the RMS; its square was asked for."),
            (4.0, "That is E z². Nothing has been removed yet."),
            (_VARIANCE, "That is the variance; the mean of relu(z) is not 0 any more."),
        ),
        hints=("z² is as large on the left as on the right.", "E relu(z)² is the right half of E z²."),
        because="Half of E z² = 4: the negative half, which ReLU throws away, has the same share.",
        solution="z² is symmetric, so that z > 0 holds half of E z² = 4: the answer is 2.",
    ),
    Number(
        statement="And the standard deviation of $\\operatorname{relu}(z)$, for the same $z \\sim N(0, 4)$?",
        stars=1,
        minutes=3,
        answer=math.sqrt(_VARIANCE),
        mistakes=(
            (math.sqrt(2), "That is the RMS, the root of the second moment; the mean is not 0."),
            (_VARIANCE, "That is the variance: take the root."),
            (_MEAN, "That is the mean."),
        ),
        hints=("Variance is second moment minus squared mean.", "The mean of relu(σ Z) is σ/√(2π), σ = 2."),
        because="Variance is 2 − 4/(2π) = 1.363, and its root 1.168.",
        solution="E relu(z)² = 2 and the mean is 2/√(2π) = 0.798: the variance is 1.363, its root 1.168.",
    ),
    Number(
        statement="Weights have $\\operatorname{Var}(w) = 1/n$, biases are 0. What is left of an RMS of 1 "
        "after 40 ReLU layers, for $n \\to \\infty$?",
        stars=1,
        minutes=3,
        answer=2.0**-20,
        tolerance=0.05,
        mistakes=(
            (2.0**-40, "That is the second moment; the RMS is its root."),
            (1.0, "So it would be in a linear network. What does each ReLU take away?"),
            (
                (_VARIANCE / 4) ** 20,
                "You took the variance of relu(z), 0.34 of E z²; a layer adds up squares, means included.",
            ),
            (1 / math.sqrt(80), "That is 1/√(2L), the law of tanh. A ReLU has the same effect at any size."),
        ),
        hints=("By which factor does one layer multiply the second moment?", "It is ½; there are 40 layers."),
        because="Each layer halves the second moment, so the RMS falls by 2^(−1/2) in each, 2^(−20) in all.",
        solution="m is halved 40 times: m = 2^(−40), and RMS = 2^(−20) = 9.5e-7.",
    ),
    Number(
        statement="A ReLU layer `nn.Linear(200, 300)` gets He's law, uniform on $[-b, b]$. What is $b$?",
        stars=2,
        minutes=4,
        answer=math.sqrt(6 / 200),
        mistakes=(
            (math.sqrt(2 / 200), "That is the standard deviation; U(−b, b) has the variance b²/3."),
            (math.sqrt(6 / 500), "That is Xavier's bound, with both fans and without the 2 for ReLU."),
            (math.sqrt(6 / 250), "That takes the mean of both fans; He's law has fan-in alone."),
            (math.sqrt(6 / 300), "You divided by fan-out: nn.Linear(200, 300) has 200 inputs."),
            (math.sqrt(3 / 200), "That keeps a linear layer. Where is the 2 that a ReLU needs?"),
        ),
        hints=("Which variance should it have, and which has U(−b, b)?", "b²/3 = 2/fan_in."),
        because="b²/3 = 2/200.",
        solution="He's variance is 2/200, that of U(−b, b) is b²/3: b = √(6/200) = 0.1732.",
    ),
    Number(
        statement="A PReLU is a leaky ReLU whose slope is learned. A network of them starts with slope "
        "$a = \\frac12$ on the left. Which `gain` does it need?",
        stars=2,
        minutes=4,
        answer=_PRELU,
        mistakes=(
            (math.sqrt(2), "That is ReLU's gain. Here the left half is not lost, only weakened."),
            (1 / _PRELU, "That is 1 over the gain, what a layer keeps of the RMS; it has to be made up for."),
            (_PRELU**2, "That is gain²: the factor on the variance."),
            (math.sqrt(2 / 1.5), "The slope enters squared: the left half of z² is multiplied by a²."),
        ),
        hints=("What share of E z² is left, from the right half and from the left?", "It is (1 + a²)/2."),
        because="The layer keeps (1 + a²)/2 = 0.625 of E z², and the gain makes up for it: 1/√0.625.",
        solution="E φ(z)² = (1 + a²)/2 E z² = 0.625 E z², so that gain² = 1.6 and gain = 1.265.",
    ),
    Number(
        statement="A colleague gave that PReLU network the gain $\\sqrt2$. After how many layers is the RMS "
        "twenty times too large?",
        stars=2,
        minutes=5,
        answer=_TWENTYFOLD,
        tolerance=0.015,  # 26.85: 27 is right, 26 too early
        mistakes=(
            (float(math.floor(_TWENTYFOLD)), "After 26 layers it is not yet twenty times too large."),
            (
                math.log(20) / math.log(2 / _PRELU**2),
                "After that many m is twenty times too large, not the RMS.",
            ),
            (
                20 / (math.sqrt(2) / _PRELU),
                "Layers multiply: look for the power that gives 20, not the product.",
            ),
            (math.log(20) / math.log(_PRELU), "The excess of a layer is the ratio of the two gains."),
        ),
        hints=(
            "By which factor is the RMS too large after one layer?",
            "By √2/1.265 = 1.118; which power is 20?",
        ),
        because="1.118 to the power of 26.8 is 20.",
        solution="Each layer is too large by √2/1.265 = 1.118, and ln 20 / ln 1.118 = 26.8.",
    ),
    Function(
        statement="Write `he_uniform_`: fill a weight in place with He's uniform law for a ReLU layer, "
        "each number drawn for itself from `generator`. It will get matrices `(out, in)` and kernels `(out, "
        "in, height, width)`.",
        stars=3,
        minutes=8,
        stub="def he_uniform_(tensor, generator):",
        measure=_he_moments,
        names=(
            "fan_in · mean(w²) / 2 of a matrix (150, 400)",
            "the same of a kernel (80, 44, 3, 5)",
        ),
        right=he_uniform_,
        tolerance=0.02,  # 5 standard errors: mean(w²) of 60,000 uniform numbers is known to 0.4 %
        mistakes=(
            (
                _uniform_of(lambda shape: math.sqrt(6 / shape[0])),
                "You divided by the number of rows; what does a unit of the output add up?",
            ),
            (
                _uniform_of(lambda shape: math.sqrt(6 * shape[1] / (shape[0] * math.prod(shape[1:])))),
                "You divided by fan-out; the second moment is kept by fan-in.",
            ),
            (
                _uniform_of(lambda shape: 6 / math.prod(shape[1:])),
                "The root is missing: b is √3 standard deviations, not 3 variances.",
            ),
            (
                _uniform_of(lambda shape: math.sqrt(2 / math.prod(shape[1:]))),
                "U(−b, b) has the variance b²/3.",
            ),
            (
                _uniform_of(lambda shape: math.sqrt(3 / math.prod(shape[1:]))),
                "A ReLU needs 2/fan_in, not 1/fan_in.",
            ),
            (
                _uniform_of(lambda shape: math.sqrt(6 / shape[1])),
                "A kernel's fan-in counts its taps, too: 44 · 3 · 5.",
            ),
            (
                _uniform_of(lambda shape: math.sqrt(6 / (shape[1] * shape[-1] ** (len(shape) - 2)))),
                "A kernel's fan-in is in · height · width; yours takes a square.",
            ),
            (
                _uniform_of(lambda shape: math.sqrt(6 / sum(shape[:2]))),
                "That is Xavier's bound, with both fans.",
            ),
        ),
        hints=(
            "Both shapes have the fan-in in all dimensions but the first.",
            "Fill with U(−b, b), b = √(6/fan_in).",
        ),
        because="The variance is 2/fan_in on both shapes.",
        solution="b²/3 = 2/fan_in, and fan_in is the number of weights of one output unit:",
    ),
    Number(
        statement="He's law, width 256. At which depth does the standard deviation of $\\ln$ RMS over "
        "networks reach $\\ln 2$, so that about one network in three is off the median by a factor of two?",
        stars=3,
        minutes=6,
        answer=4 * math.log(2) ** 2 / _NOISE,
        tolerance=0.03,
        mistakes=(
            (math.log(2) ** 2 / _NOISE, "5L/n is the variance of ln m; ln RMS is half of ln m."),
            (4 * math.log(2) ** 2 / (2 / 256), "2L/n is the law of linear networks; ReLU's is 5L/n."),
            (256 / 5, "At L = n/5 the standard deviation of ln m is 1, not that of ln RMS ln 2."),
        ),
        hints=("Start from Var ln m = 5L/n. What is Var ln RMS?", "A quarter of it: 5L/(4n) = (ln 2)²."),
        because="5L/(4n) = (ln 2)² at L = 98, by the exact law at 97.",
        solution="Var ln RMS = Var(ln m)/4 = 5L/(4n). It is (ln 2)² at L = 4n (ln 2)²/5 = 98.",
    ),
    Open(
        statement="He's law keeps the mean of $m$ at 1, but the *median* RMS is about $e^{-5L/4n}$. Which of "
        "the two would you rather keep, and what would it cost the other? Answer in a sentence or two.",
        stars=3,
        minutes=5,
        hints=(
            "Which of the two does a single network meet?",
            "A larger gain moves both by the same factor.",
        ),
        because="a single network meets the median, so for depth comparable to width one may raise the gain "
        "by e^(5/4n) a layer; the mean of m then grows by e^(5L/2n), carried by few networks with huge "
        "signals. At L much smaller than n it does not matter, and a norm removes the question.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
