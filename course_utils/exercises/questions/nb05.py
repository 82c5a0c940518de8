"""Exercises of notebook 05: sums over inputs upwards, over outputs downwards, and who may give way."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.activations import linear, tanh
from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values, as_number
from course_utils.exercises.trying import check_law, drawn, filled
from course_utils.initializers import calculate_fans
from course_utils.mean_field import chi_1, second_moments
from course_utils.network_laws import exact_log_growth, he_variances, relu_moments


def _ends(widths, mode: str) -> tuple[float, float]:
    """Return E m at the top and E g at the bottom: He's weights and ReLU, or 1/fan and linear layers."""
    upwards, downwards = relu_moments(widths, he_variances(widths, mode))
    return float(upwards[-1]), float(downwards[0])


_BLOCKS = [1, 3] * 32 + [1]  # widths, in units of d
_KEPT = _ends(_BLOCKS, "fan_avg")[0]
_SMOOTH = 900 * 9.0 ** (-np.arange(201) / 200)
_MEDIAN = math.exp(40 * exact_log_growth(linear, 1.0, 16)[0])
_FAN_IN, _FAN_OUT = calculate_fans(torch.empty(96, 64 // 8, 5, 5))
_Q = 9 * float(second_moments(tanh, 3.0, 60)[-1])  # the fixed point, without waiting for SciPy
_CHI = float(chi_1(tanh, _Q, 3.0))
_CHI_OF_9 = float(chi_1(tanh, 81 * second_moments(tanh, 9.0, 60)[-1], 9.0))


def _bottoms(bottom_gradient) -> Values:
    """Return E g at the bottom of four networks."""
    networks = (([120, 60, 90, 30], 0.5), ([64, 16, 256], 0.2), ([50, 200], 0.0), ([80, 40, 160], -0.5))
    return tuple(as_number(bottom_gradient(list(widths), slope)) for widths, slope in networks)


def bottom_gradient(widths, slope):
    """Return E g_0 of leaky ReLU layers with Var(w) = 2 / n_in, if the error on top has mean square 1."""
    depth = len(widths) - 1
    return (1 + slope**2) ** depth * widths[-1] / widths[0]


def _upsampled(weight: Tensor, stride: int) -> float:
    """Return the second moment behind a transposed convolution and a ReLU, far from the border."""
    x = torch.randn(12, len(weight), 10, 10, generator=torch.Generator().manual_seed(2))
    x /= x.square().mean(dim=1, keepdim=True).sqrt()  # in each pixel
    y = nn.functional.conv_transpose2d(x, weight, stride=stride).relu()
    border = weight.shape[-1]
    return y[..., border:-border, border:-border].square().mean().item()


def _upsampled_moments(upsampling_) -> Values:
    """Return the second moments behind three layers, from 1 in front of them."""
    layers = (((128, 64, 2, 2), 2), ((32, 64, 4, 4), 2), ((48, 36, 6, 6), 3))
    found = []
    for shape, stride in layers:
        weight = filled(lambda w, g, s=stride: upsampling_(w, s, g), *shape)
        check_law([weight])  # one by one, for they start from one seed
        check_law([weight.transpose(0, 1)])  # with a row for each output
        found.append(_upsampled(weight, stride))
    return tuple(found)


def upsampling_(weight, stride, generator):
    """Fill the weight (in, out, height, width) of a transposed convolution in front of a ReLU."""
    taps = weight[0, 0].numel() / stride**2  # that meet in one output pixel
    std = math.sqrt(2 / (len(weight) * taps))
    with torch.no_grad():
        return weight.normal_(0.0, std, generator=generator)


def _normal_of(variance):
    """Return an initializer N(0, variance) whose variance follows from shape and stride."""
    return lambda weight, stride, generator: weight.normal_(
        0.0, math.sqrt(variance(weight.shape, stride)), generator=generator
    )


_PYRAMID = [400, 100, 50, 80]


def _unequal(mode: str) -> float:
    """Return E (dL/dW_1)² over E (dL/dW_3)² of the pyramid, by the product rule."""
    upwards, downwards = relu_moments(_PYRAMID, he_variances(_PYRAMID, mode))
    return float(upwards[0] * downwards[1] / (upwards[2] * downwards[3]))


def _ratio_of_units(count: int) -> float:
    """Return E χ²_A E 1/χ²_A if each of `count` units is one of the A active ones by a coin."""
    return sum(math.comb(count, a) * a / (a - 2) for a in range(3, count + 1)) / 2**count


_UNEQUAL = {mode: _unequal(mode) for mode in ("fan_in", "fan_out")}
_OF_RATIOS = _ratio_of_units(100) * _ratio_of_units(50)  # mean of D_1/D_3 over ratio of the means
_ENDS = {mode: _ends(_PYRAMID, mode)[1] for mode in _UNEQUAL}


QUESTIONS = (
    Number(
        statement="A linear layer has 300 inputs, 120 outputs and independent weights of variance $1/300$. "
        "An error that is independent of the weights has mean square 1 per output. What is the expected mean "
        "square of the gradient per input?",
        stars=1,
        minutes=3,
        answer=_ends([300, 120], "fan_in")[1],
        mistakes=(
            (_ends([300, 120], "fan_in")[0], "That is the forward factor, a sum over the 300 inputs."),
            (
                _ends([300, 120], "fan_out")[0],
                "You divided the fans the wrong way round: the variance is 1/300, whatever is summed.",
            ),
            (
                math.sqrt(_ends([300, 120], "fan_in")[1]),
                "That is the RMS of the gradient; the mean square was asked for.",
            ),
            (_ends([300, 120], "fan_avg")[1], "That is Xavier's variance, 2/420, and here it is 1/300."),
        ),
        hints=(
            "How many terms has the sum that arrives at one input?",
            "One for each output that the input feeds, of variance 1/300 each.",
        ),
        because="An input collects from 120 outputs, and each term has the variance 1/300.",
        solution="g is multiplied by n_out Var(w) = 120/300 = 0.4.",
    ),
    Number(
        statement="A plain linear network has 32 blocks of two layers, $d \\to 3d \\to d$, Xavier's Gaussian "
        "weights of gain 1 and no biases; $d$ is large. What is left of a signal's RMS of 1?",
        stars=2,
        minutes=5,
        answer=math.sqrt(_KEPT),
        tolerance=0.03,
        mistakes=(
            (_KEPT, "That is what is left of the second moment; the RMS is its root."),
            (_KEPT**0.25, "You counted 16 blocks, not 32, or took the root twice."),
            (
                _ends(_BLOCKS, "fan_in")[0],
                "So it would be with 1/n_in; Xavier's two factors of a block do not cancel.",
            ),
            (
                math.sqrt(0.5**32),
                "You took the factor of the layer d → 3d alone, 1/2; that of 3d → d is 3/2.",
            ),
        ),
        hints=(
            "By which factor does one block, both layers together, multiply the second moment?",
            "By 2d/(d + 3d) and then by 6d/(d + 3d), 32 times.",
        ),
        because="A block keeps 3/4 of the second moment, and the RMS is the root of (3/4)^32.",
        solution="A block multiplies m by 4ab/(a + b)² = 12/16 = 0.75, so RMS = 0.75^16 = 0.0100.",
    ),
    Number(
        statement="200 linear layers narrow smoothly from 900 to 100 units: each layer is narrower by the "
        "same ratio. (Don't mind that widths are whole numbers.) The weights have Xavier's variance, the "
        "input has second moment 1. What is the expected second moment of the output?",
        stars=2,
        minutes=6,
        answer=_ends(_SMOOTH, "fan_avg")[0],
        tolerance=0.02,
        mistakes=(
            (_ends(_SMOOTH, "fan_out")[0], "That is what fan-out does; Xavier goes only part of that way."),
            (
                _ends(_SMOOTH, "fan_in")[0],
                "That is what fan-in does; Xavier's factor is not quite 1 in any layer.",
            ),
            (
                _ends(_SMOOTH, "fan_avg")[1],
                "That is the gradient at the bottom: a narrowing layer has n_in above the mean fan.",
            ),
            (
                math.sqrt(_ends(_SMOOTH, "fan_avg")[0]),
                "That is the RMS; the second moment was asked for.",
            ),
        ),
        hints=(
            "Write n_in/n_out = 1 + x with a small x. What is Xavier's forward factor, to first order in x?",
            "It is 2(1 + x)/(2 + x), about 1 + x/2, the root of the ratio; now multiply 200 of them.",
        ),
        because="Each layer multiplies m by about the root of n_in/n_out, and the roots telescope to √9.",
        solution="2 n_in/(n_in + n_out) is √(n_in/n_out) to first order in a small step: the product "
        "telescopes to √(900/100) = 3, the geometric mean of what fan-in and fan-out do.",
    ),
    Choice(
        statement="A linear network has 40 layers of 16 units, $\\operatorname{Var}(w) = 1/16$, and errors "
        "drawn independently of it. Over very many networks the mean of $g_0/g_{40}$ is 1.00, its median "
        f"about {_MEDIAN:.2f}. Which assumption of the derivation fails? "
        '"I" (independent weights), "G" (gradient independence), "infinite width", or "none"?',
        stars=2,
        minutes=4,
        options={
            "I": "The 256 weights of each layer are independent, and 40 layers do not change that.",
            "G": "An independent error meets only weights that it knows nothing of: in a linear network no "
            "forward quantity enters on the way back.",
            "infinite width": "The derivation sums 16 terms exactly and takes no limit, which is why the "
            "mean is 1.00 at width 16.",
            "none": "The law is one of the mean, and the mean is 1.00; a few networks with "
            "huge gradients carry it, as in every product of 40 random factors.",
        },
        answer="none",
        hints=(
            "What does the derivation predict: the mean, or the typical network?",
            "Compare the measured mean with the predicted one, and ask what a median has to do with it.",
        ),
        solution=f"E g_0 = 1 is exact here. The median of a product is about e^(40 E ln) = {_MEDIAN:.2f}: by "
        "notebook 02, ln g falls by about 1/n per layer.",
    ),
    Number(
        statement="`nn.Conv2d(64, 96, 5, stride=2, groups=8)` runs on an image of even size with circular "
        "padding. How many outputs does one input feed, on average over the pixels?",
        stars=2,
        minutes=5,
        answer=_FAN_OUT / 8 / 2**2,
        mistakes=(
            (_FAN_OUT, "That is what calculate_fans says; it knows neither groups nor stride."),
            (_FAN_OUT / 8, "With stride 2 there are fewer output pixels to feed than input pixels."),
            (_FAN_OUT / 2**2, "An input feeds only the outputs of its own group, one of 8."),
            (_FAN_OUT / 8 / 2, "The stride of 2 thins out rows and columns."),
            (_FAN_IN / 2**2, "8 is the number of inputs of a group; an input feeds the group's outputs."),
            (_FAN_IN, "You counted the inputs that feed one output: 8 channels times 25 taps."),
            (96 / 8 / 2**2, "The 5 × 5 taps of the kernel are missing."),
        ),
        hints=(
            "Count connections: each of them has one output at one end, one input at the other.",
            "All outputs together have (H/2)(W/2) · 96 · 200 connections; share them among the inputs.",
        ),
        because="96/8 channels times 25 taps, and only every fourth place is visited.",
        solution="An input feeds the 12 channels of its group through 25 taps, of which stride 2 leaves a "
        "quarter: 12 · 25/4 = 75.",
    ),
    Function(
        statement="Write `bottom_gradient(widths, slope)`: the expected mean square of $\\partial\\mathcal "
        "L/\\partial h_0$ in a network of leaky ReLUs ($z$ for $z > 0$, else `slope` times $z$) without "
        "biases, whose weights have $\\operatorname{Var}(w) = 2/n_\\text{in}$. The error on top is "
        "independent and has mean square 1 per unit.",
        stars=2,
        minutes=8,
        stub="def bottom_gradient(widths, slope):",
        measure=_bottoms,
        names=(
            "for 120–60–90–30 (slope 0.5)",
            "64–16–256 (slope 0.2)",
            "50–200 (slope 0)",
            "80–40–160 (slope −0.5)",
        ),
        right=bottom_gradient,
        tolerance=0.01,
        mistakes=(
            (
                lambda widths, slope: widths[-1] / widths[0],
                "The left half passes a gradient, too: slope 0.5.",
            ),
            (
                lambda widths, slope: (1 + slope**2) ** (len(widths) - 1) * widths[0] / widths[-1],
                "Downwards the sums run over the outputs: from 50 to 200 units with ReLU, the gradient "
                "grows.",
            ),
            (
                lambda widths, slope: (1 + slope**2) ** len(widths) * widths[-1] / widths[0],
                "120–60–90–30 are four widths, but not four layers.",
            ),
            (
                lambda widths, slope: (1 + slope**2) ** (len(widths) - 2) * widths[-1] / widths[0],
                "120–60–90–30 are four widths, and so three layers; yours counts two.",
            ),
            (
                lambda widths, slope: (1 + slope) ** (len(widths) - 1) * widths[-1] / widths[0],
                "It is squares that are averaged: E φ'(z)², with 0.25 on the left for a slope of 0.5.",
            ),
            (
                lambda widths, slope: ((1 + slope**2) / 2) ** (len(widths) - 1) * widths[-1] / widths[0],
                "E φ'(z)² is halved, but He's variance has a 2: from 50 to 200 with ReLU, m would be kept.",
            ),
            (
                lambda widths, slope: (1 + slope**2) ** (len(widths) - 1),
                "The fans are missing: 50–200 with ReLU does not keep the gradient per unit.",
            ),
            (
                lambda widths, slope: math.sqrt(bottom_gradient(widths, slope)),
                "That is the RMS; the mean square was asked for.",
            ),
        ),
        hints=(
            "The factor of a layer is n_out Var(w) E φ'(z)²; what is the last of the three here?",
            "E φ'(z)² = (1 + slope²)/2, and n_out Var(w) = 2 n_out/n_in telescopes.",
        ),
        because="(1 + slope²) for each layer, and the ratio of the outer widths.",
        solution="A layer multiplies g by n_out · (2/n_in) · (1 + slope²)/2. Over the layers the widths "
        "telescope:",
    ),
    Number(
        statement="Square tanh layers of infinite width have $\\operatorname{Var}(w) = 9/n$ and zero biases. "
        "The signal stands at its fixed point, flat from layer to layer. By which factor does the RMS of the "
        "gradient change over 20 layers, from the top to the bottom?",
        stars=2,
        minutes=6,
        answer=_CHI**10,
        tolerance=0.03,
        mistakes=(
            (_CHI**-10, "The other way round: that is 1 over the factor."),
            (_CHI_OF_9**10, "Var(w) = 9/n is a gain of 3, not of 9."),
            (_CHI**20, "That is the factor on the squared gradient; the RMS is its root."),
            (
                1.0,
                "The signal is flat, although Var(w) = 9/n: tanh holds it. The gradient has its own law.",
            ),
            (
                float(chi_1(tanh, 9.0, 3.0)) ** 10,
                "That is χ₁ at q = 9, where an input of second moment 1 begins, not where the signal stays.",
            ),
            (float(chi_1(tanh, _Q, 1.0)) ** 10, "You left out σ_w² = 9: E φ'(z)² alone is no layer."),
            (
                float(chi_1(tanh, _Q / 9, 3.0)) ** 10,
                "χ₁ is taken at the variance q of z, which is 9 times the second moment of h.",
            ),
        ),
        hints=(
            "χ₁ is the factor on a squared gradient; mean_field.fixed_point gives the q to take it at.",
            "mean_field.chi_1(tanh, mean_field.fixed_point(tanh, 3.0), 3.0), and 20 layers of it.",
        ),
        because="χ₁ at the fixed point is above 1, and its root is taken 20 times.",
        solution=f"The fixed point is q = {_Q:.3f}, where χ₁ = 9 E φ'(z)² = {_CHI:.4f}: the RMS is "
        f"multiplied by χ₁^10 = {_CHI**10:.2f}.",
    ),
    Function(
        statement="Write `upsampling_`: fill the weight `(in, out, k, k)` of an `nn.ConvTranspose2d` in "
        "place, with independent Gaussian weights of mean 0, so that layer and ReLU together keep the second "
        "moment, away from the border. `stride` divides $k$; no groups.",
        stars=3,
        minutes=10,
        stub="def upsampling_(weight, stride, generator):",
        measure=_upsampled_moments,
        names=(
            "second moment behind (128, 64, 2, 2) (stride 2)",
            "behind (32, 64, 4, 4) (stride 2)",
            "behind (48, 36, 6, 6) (stride 3)",
        ),
        right=upsampling_,
        tolerance=0.05,  # 4 standard errors of the 30,000 weights and of the inputs
        mistakes=(
            (
                _normal_of(lambda shape, stride: 2 / math.prod(shape[1:])),
                "That is He's law with torch's fan-in, and of a transposed weight that is the fan of the "
                "outputs.",
            ),
            (
                _normal_of(lambda shape, stride: 2 / math.prod(shape[1:]) * stride**2),
                "The stride is right, but the first dimension of this weight holds the inputs: 128, 32, 48.",
            ),
            (
                _normal_of(lambda shape, stride: 2 / (shape[0] * shape[2] * shape[3])),
                "At stride 2 not all taps of a 4 × 4 kernel meet in one output pixel.",
            ),
            (
                _normal_of(lambda shape, stride: 2 * stride / (shape[0] * shape[2] * shape[3])),
                "The stride acts in both directions of the image.",
            ),
            (
                _normal_of(lambda shape, stride: stride**2 / (shape[0] * shape[2] * shape[3])),
                "That keeps the second moment behind the convolution; the ReLU then halves it.",
            ),
            (
                _normal_of(lambda shape, stride: 2 / shape[0]),
                "A 4 × 4 kernel of stride 2 sends more than one tap to each output pixel.",
            ),
            (
                _normal_of(lambda shape, stride: (2 * stride**2 / math.prod((shape[0], *shape[2:]))) ** 2),
                "You took the variance for the standard deviation.",
            ),
        ),
        hints=(
            "How many inputs feed one output pixel? Count a 4 × 4 kernel of stride 2 along one axis first.",
            "Along an axis k/stride taps meet in one pixel, from all `in` channels each.",
        ),
        because="Inputs per output are in · (k/stride)², and the ReLU asks for a 2.",
        solution="One output pixel is fed by in · k²/stride² inputs, and the ReLU halves the second moment:",
    ),
    Experiment(
        statement="ReLU network 400–100–50–80, zero biases, inputs and errors $\\partial\\mathcal "
        "L/\\partial h_3$ from $N(0, 1)$, independent. Draw 2,000 networks or more with He's Gaussian "
        "weights, by fan-in and by fan-out, one sample each. Measure $D_1/D_3$, where $D_l$ is the mean "
        "square of $\\partial\\mathcal L/\\partial W_l$, averaged over networks first.",
        stars=3,
        minutes=15,
        answer=_UNEQUAL,
        tolerance=0.05,  # 2,000 networks have a standard error of 1 to 1.5 %
        mistakes=(
            (
                dict.fromkeys(_UNEQUAL, 1.0),
                "Flat weight gradients are a law of square layers; these have 400, 100, 50 and 80 units.",
            ),
            (
                {mode: math.sqrt(value) for mode, value in _UNEQUAL.items()},
                "These are ratios of RMS; D is a mean square.",
            ),
            ({mode: 1 / value for mode, value in _UNEQUAL.items()}, "That is D_3/D_1."),
            (
                {mode: _OF_RATIOS * value for mode, value in _UNEQUAL.items()},
                "You averaged ratios: average D_1 and D_3 first.",
            ),
            (
                dict(zip(_UNEQUAL, reversed(_UNEQUAL.values()), strict=True)),
                "Fan-in and fan-out are exchanged: fan-in divides by 400, 100 and 50.",
            ),
            (_ENDS, "That is the gradient of the signal, g_0/g_3; the weights' is asked for."),
            (
                {"fan_in": _UNEQUAL["fan_in"] * 100 * 400 / (50 * 80), "fan_out": _UNEQUAL["fan_out"] * 10},
                "These are sums of squares: W_1 has ten times the entries of W_3.",
            ),
        ),
        hints=(
            "torch.autograd.grad gives the gradient of each weight; check it by the product rule.",
            "D_l is E δ_l² times m_{l-1}: follow both through the widths under either choice.",
        ),
        because="Fan-in keeps m, and δ² follows the widths: n_3/n_1. Fan-out keeps δ², and m follows: "
        "n_2/n_0.",
        solution="D_l = E δ_l² · m_{l-1}. With fan-in m = 1 and E δ_l² = n_3/(2 n_l), so D_1/D_3 = 80/100. "
        "With fan-out E δ_l² = 1/2 and m_2 = n_0/n_2, so D_1/D_3 = 50/400.",
    ),
    Open(
        statement="The error $h_L$ spoils the prediction of gradient independence, a fresh error does not. "
        "Where does the error of cross-entropy stand, for a tanh network at initialization, and after 100 "
        "steps of training? Answer in a sentence or two; compare $g_0/g_L$ with the product of $\\chi_1$ if "
        "you can.",
        stars=3,
        minutes=10,
        hints=(
            "softmax(z) − y: which part of it depends on the weights?",
            "At initialization logits are small, and the labels are what is left of the error.",
        ),
        because="at initialization the softmax is nearly uniform, so that the error is nearly 1/K − y: it "
        "knows the labels and hardly the weights, and g_0/g_L is the product of χ₁, within a third in ten "
        "networks of five layers of 64 on the digits. After 100 steps of SGD at rate 0.05 it was some 16 "
        "times the product, with χ₁ from the trained weights and slopes: the weights were made from errors "
        "and signals; even a fresh error at the logits finds 10 times that product.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
