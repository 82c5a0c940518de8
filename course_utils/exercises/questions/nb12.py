"""Exercises of notebook 12: what a norm takes from the initialization, and what it leaves to it."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.activations import Activation, leaky_relu, relu, selu
from course_utils.exercises.asking import Choice, Function, Number, Open, Unreadable, Values
from course_utils.mean_field import chi_1, length_slope, output_second_moment, second_moments
from course_utils.quadrature import gaussian_expectation

_GAIN = 1.2  # of the SELU network
_REST = _GAIN**2 * second_moments(selu, _GAIN, 300)[-1]  # as `fixed_point`, without its slow import
_SELU = chi_1(selu, _REST, _GAIN)
_EPS = 1e-5  # torch's


def _batch_norm_growth(activation: Activation) -> float:
    """Return the factor of a layer with batch norm on squared gradients, for wide layers, large batches."""
    variance = output_second_moment(activation, 1.0) - gaussian_expectation(activation) ** 2
    return chi_1(activation, 1.0) / variance


_LEAKY = _batch_norm_growth(leaky_relu(0.2))


def _standardized(standardize_) -> Values:
    """Return |mean| of the outputs, their smallest and largest std, and how far weights turned, twice."""
    found = []
    for fan_in, fan_out, batch in ((20, 30, 12), (50, 8, 10)):
        layer, x = nn.Linear(fan_in, fan_out), 1 + 2 * torch.randn(batch, fan_in)
        layer.weight.data.mul_(torch.linspace(0.5, 3, fan_out).unsqueeze(1))
        layer.bias.data.copy_(torch.linspace(-2, 2, fan_out))
        before, given = layer.weight.clone(), x.clone()
        standardize_(layer, x)
        if not x.equal(given):
            raise Unreadable("the batch x has changed: change the layer alone")
        if not (layer.weight.shape == before.shape and layer.bias.shape == (fan_out,)):
            raise Unreadable(f"the weight has become {layer.weight.shape}, the bias {layer.bias.shape}")
        if layer.weight.equal(before):
            raise Unreadable("the layer's own weights are unchanged: change them, not a copy or the outputs")
        outputs = F.linear(x, layer.weight, layer.bias)  # whatever hangs on to the layer
        std, mean = torch.std_mean(outputs, dim=0, correction=0)
        cosine = torch.cosine_similarity(before, layer.weight, dim=1).min()
        found += [mean.abs().mean(), std.min(), std.max(), cosine]
    return tuple(round(value.item(), 4) for value in found)  # rounding errors are no mistakes


@torch.no_grad()
def standardize_(layer, x):
    """Give each unit of a linear layer mean 0 and standard deviation 1 on a batch."""
    std, mean = torch.std_mean(layer(x), dim=0, correction=0)
    layer.weight /= std.unsqueeze(1)
    layer.bias.copy_((layer.bias - mean) / std)


def _divided(size: Callable, bias: Callable = lambda bias, mean, size: (bias - mean) / size) -> Callable:
    """Return a `standardize_` that divides weights by size(outputs), and replaces the biases."""

    @torch.no_grad()
    def result(layer, x):
        outputs = layer(x)
        divisor = size(outputs)
        layer.weight.T.div_(divisor)
        layer.bias.copy_(bias(layer.bias, outputs.mean(dim=0), divisor))

    return result


def _std(outputs):
    return outputs.std(dim=0, correction=0)


def _rms(outputs):
    return outputs.square().mean(dim=0).sqrt()


QUESTIONS = (
    Number(
        statement="Behind each hidden layer stands a batch norm; its weights are He's times 3, and plain SGD "
        "without weight decay trains them with rate 0.18. Which rate trains He's weights, times 1, in the "
        "same way, to rounding?",
        stars=1,
        minutes=2,
        answer=0.18 / 3**2,
        mistakes=(
            (0.18 / 3, "The gradient is 3 times smaller, and the weights are 3 times longer: both count."),
            (0.18, "The network is the same function, but a step of the same rate turns its weights more."),
            (0.18 * 3, "The network is the same function, so that smaller weights turn more, not less."),
            (0.18 * 3**2, "Larger weights turn *less* for the same rate, so small ones need less of it."),
        ),
        hints=(
            "By which angle does a step turn the weights, as a function of their scale c?",
            "∇L(cW) = ∇L(W)/c, and the angle is η‖∇L‖/‖W‖.",
        ),
        because="Scale c at rate η is scale 1 at rate η/c²: the scale of the weights is a learning rate.",
        solution="With W = cU the gradient is ∇L(U)/c, so U moves by η/c² times ∇L(U): 0.18/9 = 0.02.",
    ),
    Choice(
        statement="You test a layer and the norm behind it. The output stays the same if one *input* is "
        "multiplied by 3, but changes if one *unit's* weights are, and also if the same vector is added to "
        "every unit's weights. Which norm is it?",
        stars=1,
        minutes=3,
        answer="RMS norm",
        options={
            "batch norm": "Batch norm treats each unit alone: it would ignore the factor on a unit's weights "
            "and see that on an input.",
            "layer norm": "Almost: but v added to all rows of W adds v·x to all units of x, and layer norm "
            "would subtract that.",
            "RMS norm": "It divides by the size of each input, and subtracts nothing.",
            "no norm": "Without a norm the output would be 3 times as large with the input.",
        },
        hints=(
            "Write the pre-activations as a matrix, inputs by units. Which norm works on rows?",
            "Layer and RMS norm ignore a factor on an input. Which of the two subtracts a mean?",
        ),
        solution="A factor on an input is one on a row, so the norm works on rows: layer or RMS norm. Adding "
        "v to all rows of W adds v·x to a row, which only layer norm subtracts.",
    ),
    Number(
        statement="torch's batch norm divides by $\\sqrt{\\sigma^2 + \\varepsilon}$, with "
        "$\\varepsilon = 10^{-5}$ and $\\sigma$ the standard deviation of a unit's pre-activations over the "
        "batch. Weights were drawn far too small. At which $\\sigma$ is the output's standard deviation only "
        "$\\frac12$?",
        stars=2,
        minutes=4,
        answer=math.sqrt(_EPS / 3),
        mistakes=(
            (_EPS / 3, "That is σ², the variance: take the root."),
            (math.sqrt(_EPS), "At σ² = ε the output's *variance* is ½, its standard deviation 0.71."),
            (
                _EPS,
                "ε is added to the variance: σ = 1e-5 gives an output of standard deviation 0.003.",
            ),
            (math.sqrt(3 * _EPS), "There σ²/(σ² + ε) is ¾. It should be the square of ½."),
        ),
        hints=(
            "What is the variance of the output, as a function of σ² and ε?",
            "σ²/(σ² + ε) = ¼.",
        ),
        because="Only weights hundreds of times smaller than usual meet ε; below that batch norm no longer "
        "hides the scale.",
        solution="The output has variance σ²/(σ² + ε). It is ¼ at σ² = ε/3, that is at σ = 0.00183.",
    ),
    Number(
        statement="Thirty layers, each of random weights, batch norm and a leaky ReLU of slope 0.2 on the "
        "left. Layers are wide, the batch large, its images uncorrelated. By which factor does the RMS of "
        "the gradient grow on its way back through all thirty?",
        stars=2,
        minutes=6,
        answer=_LEAKY**15,
        tolerance=0.02,
        mistakes=(
            (_LEAKY**30, "That is the factor on the squared gradient; the RMS is its root."),
            (_batch_norm_growth(relu) ** 15, "That is ReLU. A slope on the left makes the mean smaller."),
            (1.0, "That is the factor without subtracting the mean, which is what batch norm does."),
            (
                (0.52 / (0.52 - 1.2**2 / (2 * math.pi))) ** 15,
                "The left half pulls the mean down: E φ(Z) = (1 − a)/√(2π), with a minus.",
            ),
            (_LEAKY, "That is one layer, and of the squared gradient."),
            (_LEAKY**0.5, "That is one layer of the thirty."),
            (_LEAKY**14.5, "That is 29 layers; the gradient goes back through all thirty."),
        ),
        hints=(
            "r = E φ'(Z)² / (E φ(Z)² − (E φ(Z))²) for one layer.",
            "Both E φ'² and E φ² are (1 + a²)/2 = 0.52; the mean is (1 − a)/√(2π) = 0.319.",
        ),
        because="r = 0.52/(0.52 − 0.102) = 1.244 per layer, ReLU's is 1.467; only a = 1, a linear network, "
        "has r = 1.",
        solution="r = (1 + a²)/2 over (1 + a²)/2 − (1 − a)²/(2π), at a = 0.2: 1.2436. The RMS grows by "
        "r^(30/2) = 26.3.",
    ),
    Number(
        statement="SELU layers have the gain 1.2, so $\\operatorname{Var}(w) = 1.44/n$, zero biases and "
        "infinite width. The signal has come to rest. By which factor does the RMS of a gradient grow on its "
        "way back through 50 of them?",
        stars=2,
        minutes=6,
        answer=_SELU**25,
        tolerance=0.03,
        mistakes=(
            (_SELU**50, "That is the squared gradient's factor."),
            (_SELU, "That is χ₁, one layer's factor on the squared gradient."),
            (
                chi_1(selu, 1.0, _GAIN) ** 25,
                "You took q = 1. With gain 1.2 pre-activations come to rest at another size.",
            ),
            (chi_1(selu, 1.0) ** 25, "That is a network of gain 1."),
            (
                length_slope(selu, _REST, _GAIN) ** 25,
                "That is dq'/dq, which the signal needs to be stable; gradients have χ₁.",
            ),
            (chi_1(selu, _REST) ** 25, "χ₁ has the factor gain², which you left out."),
        ),
        hints=(
            "First find the q at which the signal rests, then χ₁ there.",
            "`mean_field.fixed_point(selu, 1.2)` is 6.43; `mean_field.chi_1` takes it, and the gain.",
        ),
        because="χ₁ is 1.133 at q = 6.43. No gain that leaves SELU a signal has a χ₁ of 1 or less.",
        solution="q = gain² E selu(√q Z)² at q = 6.43, where χ₁ = gain² E selu'(√q Z)² = 1.1326; the RMS "
        "grows by 1.1326^25 = 22.5.",
    ),
    Function(
        statement="LSUV sets one number per layer. Write `standardize_`: on a batch `x` it changes weights "
        "and biases of an `nn.Linear` so that *each unit's* output has mean 0 and standard deviation 1 (with "
        "`correction=0`). No row of the weights may change its direction.",
        stars=2,
        minutes=8,
        stub="def standardize_(layer, x):",
        measure=_standardized,
        names=(
            "mean |mean| of 30 units",
            "smallest std",
            "largest std",
            "smallest cosine of a row with what it was",
            "the same of 8 units: |mean|",
            "smallest std",
            "largest std",
            "smallest cosine",
        ),
        right=standardize_,
        tolerance=0.01,  # it is exact; n − 1 would be off by 4 %
        mistakes=(
            (
                _divided(lambda out: out.std(correction=0), lambda bias, mean, size: bias / size),
                "That is one number for the whole layer: each unit has its own standard deviation.",
            ),
            (
                _divided(lambda out: out.std(correction=0)),
                "Means are right; but the standard deviation is that of the whole layer, not of each unit.",
            ),
            (
                _divided(_std, lambda bias, mean, size: bias),
                "The standard deviations are 1, but the biases have not been changed.",
            ),
            (
                _divided(_std, lambda bias, mean, size: bias - mean),
                "The weights were divided and the biases were not: both make up the output.",
            ),
            (
                _divided(_std, lambda bias, mean, size: -mean / size),
                "You overwrote the biases; but the mean that you take off contains them.",
            ),
            (_divided(_rms), "You divided by the RMS, which is larger than the standard deviation."),
            (
                _divided(_rms, lambda bias, mean, size: bias / size),
                "Each unit's RMS is 1, but its mean is not 0.",
            ),
            (
                _divided(lambda out: _std(out).square()),
                "You divided by the variance, the square of the standard deviation.",
            ),
            (
                _divided(lambda out: out.std(dim=0)),
                "Nearly: that is the standard deviation with n − 1; batches here have 12 and 10.",
            ),
        ),
        hints=(
            "You want (output − mean)/std for each unit. Which weights and which biases give that?",
            "w·x + b becomes (w/std)·x + (b − mean)/std.",
        ),
        because="It is what a batch norm would do to this batch, written into the weights, once.",
        solution="(w·x + b − mean)/std = (w/std)·x + (b − mean)/std, with mean and std over the batch:",
    ),
    Number(
        statement="A batch norm follows the weights $W$. At norm 1 their gradient has norm 5, whatever "
        "their direction. You make one step of plain SGD, without weight decay, and may choose any rate "
        "$\\eta$ and any initial norm. How large can the effective rate $\\eta/\\lVert W\\rVert^2$ be "
        "*after* the step, at most?",
        stars=3,
        minutes=8,
        answer=1 / (2 * 5),
        mistakes=(
            (1 / 5, "That is the best one *before* the step, which itself doubles ‖W‖²."),
            (1 / (4 * 5), "You added two lengths, but the step is orthogonal to W."),
            (1 / (math.sqrt(2) * 5), "The norm grows by √2 in the best step, its square by 2."),
            (5 / 2, "The larger the gradient, the longer the step makes W, and the smaller the rate."),
        ),
        hints=(
            "The gradient is orthogonal to W. How long is W after the step?",
            "‖W'‖² = n + 25η²/n with n = ‖W‖². Write e = η/n and maximize e/(1 + 25e²).",
        ),
        because="Tiny weights get a huge first step, which makes them long: no initialization is wilder than "
        "1/(2‖ĝ‖) for more than one step.",
        solution="With n = ‖W‖² and e = η/n, ‖W'‖² = n + 25η²/n, so that η/‖W'‖² = e/(1 + 25e²). It is "
        "largest at e = 1/5, where it is 1/10.",
    ),
    Open(
        statement="A colleague: “Every hidden layer is followed by a batch norm, so I draw all weights from "
        "$N(0, 0.02^2)$ and need not think about depth, either.” We train with plain SGD. In what is the "
        "colleague right, and in what not? Answer in a few sentences.",
        stars=3,
        minutes=6,
        hints=(
            "Take the forward signal, the learning rate and the gradient one by one.",
            "Which of the three do the weights' scale, and the depth, still change?",
        ),
        because="the forward signal does not depend on the scale, as long as σ² stays far above ε. But the "
        "scale sets the effective rate η/‖W‖², another one in each layer if widths differ; and a deep stack "
        "without branches multiplies squared gradients by 1.47 or so in each ReLU layer, which no scale "
        "changes. The output layer, with no norm behind it, needs its scale as ever.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
