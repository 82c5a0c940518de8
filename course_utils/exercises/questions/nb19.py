"""Exercises of notebook 19: from the diagram and table to a network, and a gain that holds or balances."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.activations import Activation, silu, tanh
from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values
from course_utils.exercises.running import Unreadable
from course_utils.exercises.trying import check_law, drawn, in_place
from course_utils.mean_field import chi_1, gain_behind, gain_in_front, length_map, length_slope
from course_utils.network_laws import stream_law
from course_utils.quadrature import gaussian_expectation

_SQUARED = Activation("squared relu", lambda z: torch.relu(z).square(), lambda z: 2 * torch.relu(z))
_FOURTH = float(gaussian_expectation(lambda z: _SQUARED(z) ** 2))  # E phi(Z)², 3/2
_EIGHTH = float(gaussian_expectation(lambda z: _SQUARED(z) ** 4))
_SLOPE = float(length_slope(_SQUARED, 1.0, _FOURTH**-0.5))
_FAN_IN, _BRANCHES = 3072, 24
_GAIN, _DEPTH = 3.0, 6  # of the tanh stack


def _depth(noise: float, slope: float = _SLOPE) -> float:
    """Return L at which Var ln q = noise (s^2L - 1)/(s² - 1) is 1."""
    return math.log1p((slope**2 - 1) / noise) / (2 * math.log(slope))


_NOISE = (_EIGHTH / _FOURTH**2 - 1) / 10_000


def _grown(depth: int, power: float = 1.0) -> dict[str, float]:
    """Return log10 of the growth of signal and gradient in tanh layers, of second moments to a power."""
    q, signal, gradient = 1.0, 1.0, 1.0
    for _ in range(depth):
        gradient *= chi_1(tanh, q, _GAIN)
        q = signal = length_map(tanh, q, _GAIN)
    return {"signal": power * math.log10(signal), "gradient": power * math.log10(gradient)}


class _SquaredReLU(nn.Module):
    def forward(self, z):
        return _SQUARED(z)


_STACKS = (  # inner layers of one shape, lest copies go unnoticed
    (nn.SiLU, F.silu, (120, 160, 160, 160, 180)),
    (_SquaredReLU, _SQUARED.function, (100, 180, 180, 180, 150)),
)


def _started(plain_, layer: type[nn.Module], phi, widths, generator) -> nn.Sequential:
    """Return nn.Linear of these widths, with activations between, as plain_ leaves them.

    Raises: Unreadable for weights that are left as they were, or constant.
    """
    parts = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), layer())]
    model = nn.Sequential(*parts[:-1])
    before = [part.weight.clone() for part in model[::2]]
    with torch.no_grad():
        in_place(plain_, model, phi, generator)
    for part, old in zip(model[::2], before, strict=True):
        if part.weight.equal(old):
            raise Unreadable(f"{part} still has the weights that torch drew: fill them, in place")
        if part.weight.min() == part.weight.max():
            raise Unreadable(f"all weights of {part} are {part.weight.max():g}")
    return model


def _scales(plain_) -> Values:
    """Return fan_in · mean(w²) of the layers, and the largest bias · √fan_in, twice.

    Raises: Unreadable unless the weights are drawn from `generator`, by a Gaussian law, each for itself.
    """
    found = []
    for stack in _STACKS:
        start = partial(_started, plain_, *stack)
        check_law(drawn(lambda g, start=start: [part.weight.detach() for part in start(g)[::2]]))
        parts = _started(plain_, *stack, torch.Generator().manual_seed(19))[::2]
        first, *hidden, last = [p.in_features * p.weight.square().mean().item() for p in parts]
        biases = [p.in_features**0.5 * p.bias.abs().max().item() for p in parts]
        found += [first, min(hidden), max(hidden), last, max(biases)]
    return tuple(found)


def plain_(model, phi, generator):
    """Fill a plain stack for standardized inputs."""
    *front, last = [layer for layer in model if isinstance(layer, nn.Linear)]
    gain = gain_in_front(phi)
    for layer in (*front, last):
        std = (1.0 if layer is last else gain) / math.sqrt(layer.in_features)
        layer.weight.normal_(0.0, std, generator=generator)
        layer.bias.zero_()


_front = {F.silu: gain_in_front(silu), _SQUARED.function: _FOURTH**-0.25}
_behind = {F.silu: gain_behind(silu), _SQUARED.function: _FOURTH**-0.5}


def _filling(gains: Callable, fan: Callable = lambda layer: layer.in_features, clear: bool = True):
    """Return a `plain_` with the gains(gain in front, gain behind) for first, hidden and last layer."""

    def plain_(model, phi, generator):
        first, hidden, last = gains(_front[phi], _behind[phi])
        for layer, gain in zip(model[::2], (first, hidden, hidden, last), strict=True):
            layer.weight.normal_(0.0, gain / math.sqrt(fan(layer)), generator=generator)
            if clear:
                layer.bias.zero_()

    return plain_


QUESTIONS = (
    Choice(
        statement="A network of 30 GELU layers has a layer norm before each GELU, no branches and no trained "
        'weights. To which leaf does the diagram lead? Answer "layer norm", "deep GELU", "GELU" (gain 1.47) '
        'or "residual".',
        stars=1,
        minutes=2,
        options={
            "layer norm": "The fourth question, a norm in each layer, is the first with a yes.",
            "deep GELU": "That leaf is for plain stacks; the diagram asks about norms first.",
            "GELU": "Without norms it would hold for ten layers, not 30; and there are norms.",
            "residual": "There are no branches whose sums would grow.",
        },
        answer="layer norm",
        hints=(
            "Read from the top; the first yes decides.",
            "Trained? Recurrent? Branches? A norm in each layer?",
        ),
        solution="No, no, no, yes: layer norm. Each norm brings its GELU a second moment of 1, whatever the "
        "weights.",
    ),
    Number(
        statement="The MLP branches of a pre-norm transformer end in `nn.Linear(3072, 768)`, with $g = 1$. "
        "It has 12 blocks of two branches each. Which standard deviation does the table give these last "
        "weights?",
        stars=1,
        minutes=3,
        answer=1 / math.sqrt(_FAN_IN * _BRANCHES),
        mistakes=(
            (1 / math.sqrt(_FAN_IN), "So a plain layer would start; 24 branches are summed on the stream."),
            (
                1 / math.sqrt(_FAN_IN * 12),
                "Too large by √2: N counts branches, two in each block, and g is 1.",
            ),
            (1 / math.sqrt(_FAN_IN) / _BRANCHES, "24 independent branches add up as √24 in RMS, not as 24."),
            (1 / math.sqrt(768 * _BRANCHES), "nn.Linear(3072, 768) has 3,072 inputs; 768 is its fan-out."),
            (1 / (_FAN_IN * _BRANCHES), "That is the variance."),
        ),
        hints=("A plain layer's 1/√n, times the factor for N branches.", "n = 3,072 and N = 2 · 12."),
        because="1/√3072 for the layer, and 1/√24 for the sum of 24 branches.",
        solution="(1/√3072)(1/√24) = 0.0037.",
    ),
    Number(
        statement="Each of 16 residual branches ends in a batch norm as torch builds it (weight 1, bias 0). "
        "Somebody has multiplied the last convolution *in front of* each norm by ¼. The stream starts at "
        "second moment 1: where does it end? (Large batches, branches uncorrelated with the stream.)",
        stars=2,
        minutes=4,
        answer=float(stream_law(1.0, 16, "pre-norm", 64)[0][-1]),
        mistakes=(
            (2.0, "So it would be with ¼ in the norms; in front of them the norm divides it out again."),
            (2.0**16, "A branch adds its norm's second moment 1, not another copy of the grown stream's."),
            ((1 + 1 / 16) ** 16, "That is for branches without norm that return 1/16 of what they get."),
            (5.0, "¼ in front of a norm does not reach the stream, neither as ¼ nor as 1/16."),
            (math.sqrt(17), "That is the RMS."),
            (16.0, "The 16 branches come on top of what the stream held at the start."),
        ),
        hints=("What does a norm do to a factor in front of it?", "Each branch adds 1, whatever the ¼ does."),
        because="Each norm undoes the ¼ and adds a second moment of 1: 1 + 16.",
        solution="The norm divides by whatever the convolution multiplies with, so each branch adds 1: 17. "
        "With ¼ in the norms' weights it would be 1 + 16/16 = 2.",
    ),
    Number(
        statement="The squared ReLU, $\\varphi(z) = \\max(z, 0)^2$. Which gain does it need *in front*: "
        "inputs of second moment 1, Gaussian weights, wide, outputs of second moment 1?",
        stars=2,
        minutes=4,
        answer=_FOURTH**-0.25,
        mistakes=(
            (_FOURTH**-0.5, "That is the gain behind; in front the gain comes out of φ squared."),
            ((2 * _FOURTH) ** -0.25, "E Z⁴ = 3 counts both sides; the ReLU keeps the right one."),
            (_FOURTH**0.25, "That is the inverse: E φ(Z)² is above 1, so that the gain has to be below."),
            (math.sqrt(2), "That is ReLU's; here E φ² holds a fourth moment."),
            (2**0.25, "E Z⁴ is 3, not 1: fourth moments are not squares of second ones."),
            (1 / _FOURTH, "E φ(gZ)² = 1.5 g⁴, so that a fourth root is to be taken."),
        ),
        hints=("Solve E φ(gZ)² = 1. Which power of g comes out?", "E max(gZ, 0)⁴ = g⁴ E Z⁴/2, and E Z⁴ = 3."),
        because="1.5 g⁴ = 1.",
        solution="E φ(gZ)² = g⁴ · 3/2 = 1 for g = (2/3)^(1/4) = 0.904; `gain_in_front` agrees. Behind it is "
        "1/√1.5 = 0.816.",
    ),
    Experiment(
        statement="Six tanh layers $z' = W\\varphi(z)$, Gaussian weights of gain 3, no biases, width 256 or "
        "more; the first $z$ is $N(0, 1)$. Give $\\log_{10}$ of the growth of the second moment, of $z$ from "
        'first to last (`"signal"`) and of a random error on its way back (`"gradient"`), averaged over '
        "networks.",
        stars=2,
        minutes=8,
        answer=_grown(_DEPTH),
        tolerance=0.05,  # twelve networks of width 256 know them to about 0.01 and 0.03
        mistakes=(
            (_grown(_DEPTH, 0.5), "These are for the RMS; second moments have twice the logarithm."),
            (
                _grown(_DEPTH) | {"gradient": _grown(_DEPTH, 0.5)["gradient"]},
                "Your second number is for the norm of the error; its square is asked for.",
            ),
            (_grown(_DEPTH + 1), "One layer too many: six matrices lie between the first z and the last."),
            (_grown(_DEPTH - 1), "One layer is missing: six matrices lie between the first z and the last."),
            (
                {"signal": 12 * math.log10(_GAIN), "gradient": 12 * math.log10(_GAIN)},
                "9 per layer is for a linear network; the tanh holds the signal down.",
            ),
            (
                {"signal": 10 ** _grown(_DEPTH)["signal"], "gradient": 10 ** _grown(_DEPTH)["gradient"]},
                "These are the factors; their logarithms to base 10 are asked for.",
            ),
            (
                _grown(_DEPTH) | {"gradient": 6 * math.log10(chi_1(tanh, 1.0, _GAIN))},
                "You took χ₁ at q = 1 six times; q grows, and the tanh's slope falls with it.",
            ),
        ),
        hints=(
            "`stack` and `growth` of the notebook do it; `predicted` tells what to expect.",
            "growth(stack(6, tanh, 3.0)) for some networks, and the mean of what it returns.",
        ),
        because="The signal settles near q* = 6.3, while a squared gradient grows by χ₁, 4.2 in the "
        "first layer and 1.9 in the last.",
        solution="The tanh holds q at 6.3 (log10 0.80), so that the signal looks healthy; χ₁ falls from "
        "4.2 to 1.9 on the way and makes 130 of the squared gradient in six layers (log10 2.12): chaos.",
    ),
    Function(
        statement="Write `plain_` (called under `no_grad`): `model` is an `nn.Sequential` of `nn.Linear` and "
        "activation modules, `phi` its activation as a function. Draw Gaussian weights for standardized "
        "inputs, with the gain *in front* and `generator`, by the rules of the page for plain networks, no "
        "weights of 0. It is tried with SiLU and a squared ReLU.",
        stars=2,
        minutes=8,
        stub="def plain_(model, phi, generator):",
        measure=_scales,
        names=tuple(
            f"{what} of {name}"
            for name in ("SiLU", "squared ReLU")
            for what in (
                "fan_in · mean(w²), first layer",
                "hidden, least",
                "hidden, most",
                "last",
                "largest bias · √fan_in",
            )
        ),
        right=plain_,
        tolerance=0.05,  # mean(w²) of 18,000 normal numbers is known to 1 %
        mistakes=(
            (
                _filling(lambda f, b: (b, b, 1)),
                "That is the gain behind, for a φ that a norm in front of it feeds.",
            ),
            (
                _filling(lambda f, b: (1, b, 1)),
                "That is the gain behind, with 1 in front of the first φ: z then has second moment 1, h has "
                "not.",
            ),
            (_filling(lambda f, b: (math.sqrt(2), math.sqrt(2), 1)), "√2 is ReLU's; ask `phi` for its own."),
            (_filling(lambda f, b: (f, f, f)), "No activation follows the last layer: it gets gain 1."),
            (_filling(lambda f, b: (1, f, 1)), "The first layer has φ behind it as well: same gain."),
            (
                _filling(lambda f, b: (f, f, 1), lambda layer: (layer.in_features + layer.out_features) / 2),
                "Xavier's mean of both fans is a compromise; a unit sums its inputs.",
            ),
            (
                _filling(lambda f, b: (1, 1, 1)),
                "Gain 1 is for layers without activation: φ changes the second moment.",
            ),
            (
                _filling(lambda f, b: (_front[F.silu], _front[F.silu], 1)),
                "You took SiLU's gain for both; ask `phi`.",
            ),
            (
                _filling(lambda f, b: (f, f, 1), lambda layer: layer.out_features),
                "You divided by fan-out; a unit sums its inputs.",
            ),
            (
                _filling(lambda f, b: (f, f, 1), clear=False),
                "The biases still hold what torch drew; on this page they are 0.",
            ),
            (_filling(lambda f, b: (f**2, f**2, 1)), "gain² belongs to the variance, gain to the std."),
        ),
        hints=(
            "`mean_field.gain_in_front(phi)` solves for the gain. Which layers get it?",
            "All nn.Linear but the last: std gain/√in_features; the last 1/√in_features; biases 0.",
        ),
        because="Gain in front in all layers but the last, fan-in everywhere, biases 0.",
        solution="Every layer that φ follows gets the gain in front, the last one 1:",
    ),
    Number(
        statement="A *plain* network of squared ReLUs, 10,000 units wide, starts at its fixed point. After "
        "how many layers is the standard deviation of $\\ln q$ over networks 1, by the page's first-order "
        "law? (Solve it for a real number.)",
        stars=3,
        minutes=8,
        answer=_depth(_NOISE),
        tolerance=0.0025,  # without the −1 in v it is 0.6 % less
        mistakes=(
            (_depth((_NOISE * 10_000 + 1) / 10_000), "A variance has a −1 in it: v is κ − 1 over n."),
            (math.ceil(_depth(_NOISE)), "That is the next integer; give the number with three digits."),
            (1 / _NOISE, "That is for slope 1: errors would add up, but here each layer also enlarges them."),
            (
                _depth(_NOISE, math.sqrt(_SLOPE)),
                "The slope multiplies ln q, so its square multiplies the variance.",
            ),
            (
                _depth((_EIGHTH / (2 * _FOURTH**2) - 1) / 10_000),
                "The ReLU halves E φ⁴ once and (E φ²)² twice: one ½ is missing in your noise.",
            ),
            (_depth(5 / 10_000), "5/n is the noise of a ReLU layer; squares have much heavier tails."),
        ),
        hints=(
            "Two numbers are needed: the slope s at the fixed point, and the noise v of a layer.",
            "φ(cz) = c²φ(z) gives s = 2; v = (E φ⁴/(E φ²)² − 1)/n with E Z⁸ = 105, E Z⁴ = 3, one half each.",
        ),
        because="s = 2 and v = 22.3/n: errors of ln q double per layer, and use up 10,000 units in five.",
        solution="q' ∝ q² has slope 2 at any gain. v = (52.5/1.5² − 1)/n = 22.3/10,000. v(4^L − 1)/3 = 1 "
        "gives L = 5.2; a hundred times wider buys 3.3 layers more.",
    ),
    Open(
        statement="Take a network that you work with, or one from a paper. Which leaf of the diagram is it, "
        "what would you change in its framework's start, what would `initialize_` leave alone, and which "
        "measurement before training would prove you wrong?",
        stars=3,
        minutes=8,
        hints=(
            "Ask first what in the network would correct a wrong scale.",
            "Frozen, bare and unused parameters, and what no longer follows torch's own law, are left alone; "
            "what would you do with each?",
        ),
        because="a pre-norm transformer with a tied embedding, say, leads to the leaf transformer: I would "
        "draw its copied layers anew, put 1/√N into the last layer of each branch, multiply what is looked "
        "up in the tied matrix by √n, since the tool draws it from N(0, 1/n), and draw bare position "
        "parameters by hand, which it leaves alone. I expect little: "
        "norms and branches forgive. I would be wrong if signal or gradient of the untouched model moved by "
        "more than a factor of 30 from first to last block, or its first loss were far above ln K.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
