"""Exercises of notebook 07: what the first weights decide about training, and what torch draws by default."""

import math

import torch
from torch import nn

from course_utils.activations import relu
from course_utils.exercises.asking import (
    Choice,
    Experiment,
    Function,
    Number,
    Open,
    Unreadable,
    Values,
    as_number,
)
from course_utils.exercises.trying import check_law
from course_utils.initializers import calculate_gain, normal_, zeros_
from course_utils.mean_field import crossing_layer, output_second_moment

_HALF = float(output_second_moment(relu, 1.0))  # what a ReLU leaves of E z²
_XAVIER = math.sqrt(_HALF)  # factor on the RMS of a square ReLU layer
_DEPTH = crossing_layer(1e-6, _XAVIER)  # factors of a layer from 0.01 to 1e-8
_UNITS = 100


def _gains(gain) -> Values:
    """Return what is measured on a linear layer, a convolution with groups, and a transposed one."""
    layers = (nn.Linear(200, 50), nn.Conv2d(32, 64, (3, 5), groups=4), nn.ConvTranspose2d(64, 16, (3, 2)))
    return tuple(
        _gain_of_layer(gain, layer, size) for layer, size in zip(layers, (0.2, 0.1, 0.04), strict=True)
    )


def _gain_of_layer(gain, layer, size) -> float:
    """Return what is measured on weights of two sizes, beside large biases."""
    nn.init.uniform_(layer.weight, -size, size)
    layer.weight.data[::2] *= 2
    nn.init.normal_(layer.bias, std=5.0)
    before = layer.weight.clone()
    found = as_number(gain(layer))
    if not layer.weight.equal(before):
        raise Unreadable("your function changed the layer it was to measure")
    return found


def gain(layer):
    """Return the root of fan-in times Var(w) of a linear layer or a (transposed) convolution."""
    weight = layer.weight.detach()
    inputs = len(weight) if isinstance(layer, nn.ConvTranspose2d) else weight.shape[1]
    fan_in = inputs * weight[0, 0].numel()
    return math.sqrt(fan_in * weight.square().mean().item())


def _gain_of(fan):
    """Return a measurement with another fan."""
    return lambda layer: math.sqrt(fan(layer) * layer.weight.detach().square().mean().item())


def _taps(layer) -> int:
    return layer.weight[0, 0].numel()


def _square_kernel(layer):
    sides = layer.weight.shape[2:]
    return gain(layer) * math.sqrt(sides[-1] / sides[0] if sides else 1)


def _repaired_model(repair) -> nn.Sequential:
    """Return a model after its repair. Raises: Unreadable unless that drew normal weights, and no more."""
    model = nn.Sequential(
        nn.Linear(300, 200), nn.LeakyReLU(0.6),
        nn.Linear(200, 300), nn.LeakyReLU(0.1),
        nn.Linear(300, 150), nn.LeakyReLU(0.3),
        nn.Linear(150, 200),
    )  # fmt: skip
    weights, layers = [layer.weight.clone() for layer in model[::2]], repr(model)
    repair(model)
    if repr(model) != layers:
        raise Unreadable("layers and slopes are the model's: leave `negative_slope` and the like as they are")
    if any((layer.weight == old).any() for layer, old in zip(model[::2], weights, strict=True)):
        raise Unreadable("weights of the model you were given are unchanged: fill all of them, not a copy")
    check_law([layer.weight.detach() for layer in model[::2]])
    return model


def _repaired_moments(repair) -> Values:
    """Return what each layer, its activation included, makes of inputs of mean square 1, and the biases."""
    model, found, nonzero = _repaired_model(repair), [], 0.0
    with torch.no_grad():
        for place in range(0, len(model), 2):
            fan_in = model[place].in_features
            x = torch.randn(500, fan_in)
            x /= x.square().mean(dim=1, keepdim=True).sqrt()
            found.append(model[place : place + 2](x).square().mean().item())
            nonzero = max(nonzero, (model[place].bias != 0).float().mean().item())
    return (*found, nonzero)


def repair(model):
    """Draw the weights of linear layers and leaky ReLUs so that a second moment of 1 stays 1."""
    for layer, activation in zip(model, [*model[1:], None], strict=True):
        if isinstance(layer, nn.Linear):
            slope = 1.0 if activation is None else activation.negative_slope
            variance = 2 / (1 + slope**2) / layer.in_features
            nn.init.normal_(layer.weight, std=math.sqrt(variance))
            nn.init.zeros_(layer.bias)


def _repaired(variance, biases=False, shift=1):
    """Return a repair with another variance(layer, slope), which is 1 for the last layer."""

    def wrong(model):
        for place in range(0, len(model), 2):
            near = place + shift
            slope = model[near].negative_slope if 0 <= near < len(model) else 1.0
            normal_(model[place].weight, std=math.sqrt(variance(model[place], slope)))
            if not biases:
                zeros_(model[place].bias)

    return wrong


QUESTIONS = (
    Number(
        statement="A ReLU layer of 512 inputs has Gaussian weights of standard deviation 0.02 and zero "
        "biases. By which factor $s$ does it multiply the RMS of its input, on average over many layers, for "
        "a large number of units?",
        stars=1,
        minutes=3,
        answer=0.02 * math.sqrt(512 * _HALF),
        mistakes=(
            (0.02 * math.sqrt(512), "That is a linear layer; what does the ReLU keep of z²?"),
            (0.02**2 * 512 * _HALF, "That is the factor on the second moment; s is its root."),
            (0.02 * 512 * _HALF, "Variances add over the 512 inputs, not standard deviations."),
            (1.0, "That would be He's weights, with the standard deviation √(2/512) = 0.0625."),
        ),
        hints=(
            "The second moment is multiplied by n Var(w)/2. Which is Var(w)?",
            "s = √(n Var(w)/2) with n = 512 and Var(w) = 0.02².",
        ),
        because="n Var(w)/2 = 512 · 0.0004/2 = 0.1024, and its root is s.",
        solution="s = √(n Var(w)/2) = 0.02 √256 = 0.32, a third of what He's weights do.",
    ),
    Number(
        statement="A ReLU classifier has 12 hidden layers, all square, with Xavier's weights instead of "
        "He's; biases are zero, the output layer is the same, and small enough that the logits of both are "
        "tiny. The gradient of a hidden matrix at step 0: which share of He's is it, in RMS?",
        stars=1,
        minutes=3,
        answer=_XAVIER**11,
        mistakes=(
            (_XAVIER**12, "That is the factor on the logits; a gradient leaves out its own matrix."),
            (_XAVIER**22, "That is the share of the squared gradient."),
            (_XAVIER, "That is one layer; the chain rule passes through the others as well."),
            (_XAVIER**24, "That is the share of the squared logits."),
            (
                _XAVIER**-11,
                "Upside down: Xavier's gradient is the smaller one, so that its share of He's is below 1.",
            ),
        ),
        hints=(
            "Xavier's square layers are He's times c. Which c, and which power of it does a gradient have?",
            "c = 1/√2, and of the 12 hidden matrices the chain rule takes out one.",
        ),
        because="c = 1/√2, once for each of the 11 other hidden matrices.",
        solution="The gradient goes with c^(H − 1) = 2^(−11/2) = 0.0221.",
    ),
    Number(
        statement="A colleague's He weights are ten percent too large, $c = 1.1$, in all hidden ReLU layers; "
        "biases are zero. Say that logits of more than 30 times He's do not train. From which number of "
        "hidden layers on is that so?",
        stars=2,
        minutes=4,
        answer=crossing_layer(30, 1.1),
        tolerance=0.009,  # 36 is right, 35 and 37 are not
        mistakes=(
            (35, f"1.1³⁵ is {1.1**35:.1f}: not yet more than 30."),
            (1 + crossing_layer(30, 1.1), "That is for gradients, c^(H − 1); logits have c^H."),
            (
                crossing_layer(30, 1.1**2),
                "After so many layers it is the squared logits that are 30 times He's.",
            ),
            (30 / 1.1, "Layers multiply: look for the power that gives 30, not for the product."),
            (30 / 0.1, "The 10 % compound: each layer takes them of what has arrived."),
            (
                crossing_layer(30, math.sqrt(1.1)),
                "c multiplies weights, so logits grow by c per layer, not by √c.",
            ),
        ),
        hints=("By which factor are the logits too large after H layers?", "1.1^H = 30: take logarithms."),
        because="1.1 to that power is 30.",
        solution="Logits go with c^H, and ln 30/ln 1.1 = 35.7: from 36 hidden layers on.",
    ),
    Function(
        statement="Write `gain(layer)`: measure the gain $\\sqrt{\\text{fan-in}\\operatorname{Var}(w)}$ of a "
        "layer's weights, where fan-in is meant literally: how many inputs feed one output. It will get "
        "`nn.Linear`, `nn.Conv2d` with groups, and `nn.ConvTranspose2d` of stride 1 without groups; ignore "
        "borders.",
        stars=2,
        minutes=8,
        stub="def gain(layer):",
        measure=_gains,
        names=(
            "nn.Linear(200, 50)",
            "nn.Conv2d(32, 64, (3, 5), groups=4)",
            "nn.ConvTranspose2d(64, 16, (3, 2))",
        ),
        right=gain,
        tolerance=0.01,
        mistakes=(
            (lambda layer: gain(layer) ** 2, "That is fan-in · Var(w), the squared gain."),
            (
                _gain_of(lambda layer: layer.weight.shape[1] * _taps(layer)),
                "The transposed weight has the shape (64, 16, 3, 2): its inputs come first.",
            ),
            (
                lambda layer: gain(layer) / math.sqrt(_taps(layer)),
                "A kernel of 3 × 2 feeds each output through six taps, one of 3 × 5 through 15.",
            ),
            (_square_kernel, "The kernel of Conv2d is no square: 3 × 5 taps, not 5 × 5."),
            (
                _gain_of(lambda layer: getattr(layer, "out_channels", 50) * _taps(layer)),
                "That is fan-out: how many outputs one input feeds.",
            ),
            (
                _gain_of(lambda layer: getattr(layer, "in_channels", 200) * _taps(layer)),
                "With 4 groups an output sees only a quarter of the 32 channels.",
            ),
            (
                _gain_of(lambda layer: len(layer.weight) * _taps(layer)),
                "nn.Linear(200, 50) has 200 inputs; its weight has the shape (50, 200).",
            ),
            (
                _gain_of(lambda layer: 1),
                "That is the standard deviation of the weights alone, without any fan.",
            ),
        ),
        hints=(
            "Which dimensions of layer.weight count inputs? Look at the shape of each of the three.",
            "shape[1] and the kernel, but shape[0] and the kernel where the layer is transposed.",
        ),
        because="Fan-in is right for all three, and so is the root.",
        solution="weight.shape[1] counts the inputs of one group, but of a transposed layer shape[0] does; "
        "each comes with all taps:",
    ),
    Number(
        statement="In He networks of a certain width the first gradient of a hidden matrix has the RMS 0.01, "
        "whatever the depth. Replace He by Xavier (square ReLU layers, zero biases, tiny logits). At how "
        "many hidden layers has that RMS fallen to Adam's $\\varepsilon = 10^{-8}$?",
        stars=2,
        minutes=5,
        answer=1 + _DEPTH,
        mistakes=(
            (_DEPTH, "That many factors of 1/√2 it takes; but a gradient leaves out its own matrix."),
            (1 + _DEPTH / 2, "That is the depth where the factor on squares, 2^(1 − H), is 10^(−6)."),
            (1 + crossing_layer(1e-8, _XAVIER), "You began at 1; He's gradient is 0.01."),
            (
                1 + crossing_layer(1e-6, math.sqrt(1 / 6)),
                "That is torch's default, with s = 1/√6; Xavier's s is 1/√2.",
            ),
        ),
        hints=(
            "Xavier's gradient is He's times which power of 1/√2?",
            "0.01 · 2^(−(H − 1)/2) = 10^(−8).",
        ),
        because="2^(−(H − 1)/2) = 10^(−6) there; deeper networks leave Adam with the steps of SGD.",
        solution="0.01 · 2^(−(H − 1)/2) = 10^(−8) gives H = 1 + 2 · 6 ln 10/ln 2 = 40.9.",
    ),
    Choice(
        statement="A ReLU network with 30 hidden layers stays at the loss $\\ln 10$ for 200 steps of SGD, at "
        "every learning rate from 0.001 to 0.1. Adam with its usual $\\varepsilon$ and rate 0.001 gets below "
        'it within thirty steps. What is the matter: "small gradients", "gradients below epsilon", '
        '"tied units", or "large weights"?',
        stars=2,
        minutes=3,
        options={
            "small gradients": "They are too small for SGD at these rates, but far enough above ε, so that "
            "Adam divides their size out.",
            "gradients below epsilon": "Then Adam's step would be η g/ε, as small in proportion as SGD's, "
            "and Adam would stand still, too.",
            "tied units": "Tied units have equal gradients and get equal steps from Adam as well: no "
            "optimizer that works entry by entry frees them.",
            "large weights": "Weights that are too large start far above ln 10, and SGD ends in nan rather "
            "than in silence.",
        },
        answer="small gradients",
        hints=(
            "What does Adam do to a gradient that SGD does not?",
            "Adam's step is η g/(|g| + ε). For which g is it about η?",
        ),
        solution="Standing still at ln 10 means tiny logits and tiny steps. Adam's steps have the size η as "
        "long as |g| is far above ε, so the gradients lie between: small for SGD, large against 10^(−8).",
    ),
    Experiment(
        statement="Stack 40 `nn.Linear(100, 100)` as torch draws them, biases included, **without** "
        "activation; inputs $N(0, 1)$, float64. Measure over 200 stacks or more `rms`, the root of the mean "
        "square of the last outputs, and `factor`, by which one layer multiplies the squared distance of two "
        "inputs.",
        stars=3,
        minutes=10,
        answer={"rms": 1 / math.sqrt(2 * _UNITS), "factor": 1 / 3},
        tolerance=0.04,  # 200 stacks: 0.6 % for rms, less for the factor
        mistakes=(
            (
                {"rms": 1 / math.sqrt(5 * _UNITS), "factor": 1 / 6},
                "Those are layers with a ReLU, which halves what each of these passes on.",
            ),
            ({"rms": 1 / (2 * _UNITS), "factor": 1 / 3}, "That is the mean square; rms is its root."),
            (
                {"rms": 1 / math.sqrt(2 * _UNITS), "factor": 1 / math.sqrt(3)},
                "That is the factor on the distance; the squared one was asked for.",
            ),
            ({"rms": 3.0**-20, "factor": 1 / 3}, "That is without biases: torch draws them at random, too."),
            (
                {"rms": 1 / math.sqrt(3 * _UNITS), "factor": 1 / 3},
                "That is the last layer's bias alone; those below it have left something as well.",
            ),
        ),
        hints=(
            "Build the 40 layers afresh for each stack, and send two inputs through the same layers.",
            "Write down m' for one layer with Var(w) = Var(b) = 1/(3n), and its fixed point.",
        ),
        because="m' = m/3 + 1/(3n) settles at 1/(2n), made of biases, which two inputs share.",
        solution="m' = m/3 + 1/(3n) has the fixed point m = 1/(2n), so rms = 1/√200 = 0.0707. The biases "
        "cancel in a difference, and n Var(w) = 1/3 is its factor.",
    ),
    Number(
        statement="All hidden matrices of a ReLU network with 10 hidden layers are multiplied by 0.7; the "
        "output layer is not, biases are zero, logits tiny. By which factor must SGD's learning rate grow, "
        "so that the first update of a hidden matrix, *relative* to the matrix, stays what it was?",
        stars=3,
        minutes=6,
        answer=0.7**-8,
        mistakes=(
            (0.7**-9, "That makes up for the gradient; but the matrix itself is smaller, too."),
            (
                0.7**-10,
                "You gave the matrix the wrong side: a smaller matrix makes a relative update larger.",
            ),
            (0.7**-16, "That is a factor for squares; updates were asked for."),
            (1.0, "SGD's step has the size of g, and both g and the matrix have changed."),
            (0.7**8, "That makes small updates smaller still."),
        ),
        hints=(
            "The relative update is η RMS(g)/RMS(W). What becomes of g and of W?",
            "g is multiplied by 0.7^9, W by 0.7.",
        ),
        because="0.7^9 from the gradient, over 0.7 from the matrix.",
        solution="η g/W changes by c^(H − 1)/c = 0.7^8, so the rate has to grow by 0.7^(−8) = 17.3.",
    ),
    Function(
        statement="Write `repair(model)`: `model` is an `nn.Sequential` of `nn.Linear` and `nn.LeakyReLU` in "
        "turn, a linear layer last, with slopes of their own (`negative_slope`). Draw normal weights and set "
        "biases to 0, so that a second moment of 1 is 1 behind each activation, and at the logits.",
        stars=3,
        minutes=10,
        stub="def repair(model):",
        measure=_repaired_moments,
        names=(
            "second moment, from 1, behind Linear(300, 200) (slope 0.6)",
            "behind Linear(200, 300) (slope 0.1)",
            "behind Linear(300, 150) (slope 0.3)",
            "at the logits, behind Linear(150, 200)",
            "share of biases that are not 0",
        ),
        right=repair,
        tolerance=0.04,  # 4 standard errors of the smallest matrix
        mistakes=(
            (
                _repaired(lambda layer, slope: (1 + (slope < 1)) / layer.in_features),
                "That is ReLU's gain; a slope of 0.6 lets part of the left half through.",
            ),
            (
                _repaired(
                    lambda layer, slope: (
                        calculate_gain("leaky_relu", slope if slope < 1 else 0.0) ** 2 / layer.in_features
                    )
                ),
                "No activation follows the last layer, so nothing has to be made up for there.",
            ),
            (
                _repaired(lambda layer, _: 2 / layer.in_features),
                "That is He's law for ReLU in all layers; but none of the activations is one, and the last "
                "is none.",
            ),
            (
                _repaired(lambda layer, slope: calculate_gain("leaky_relu", slope) ** 2 / layer.out_features),
                "You divided by fan-out: Linear(200, 300) has 200 inputs.",
            ),
            (
                _repaired(lambda layer, slope: 4 / (1 + slope**2) / sum(layer.weight.shape)),
                "That is Xavier's mean of both fans; the signal going up asks for one of them.",
            ),
            (
                _repaired(lambda layer, slope: 2 / (1 + slope) / layer.in_features),
                "The slope enters squared: the left half of z² is multiplied by 0.6².",
            ),
            (
                _repaired(
                    lambda layer, slope: calculate_gain("leaky_relu", slope) ** 2 / layer.in_features, True
                ),
                "The weights are right; the biases still hold what torch drew.",
            ),
            (
                _repaired(lambda layer, slope: 2 / (1 + (0.6**2 if slope < 1 else 1)) / layer.in_features),
                "You took the first slope for all layers; each LeakyReLU has its own.",
            ),
            (
                _repaired(lambda layer, slope: 2 / (1 + 0.6**2) / layer.in_features),
                "You took the first slope everywhere, even for the last layer, which has none behind it.",
            ),
            (
                _repaired(lambda layer, _: 1 / layer.in_features),
                "Those are linear layers: leaky ReLUs take away part of z², which is to be made up for.",
            ),
            (
                _repaired(lambda layer, slope: (1 + (slope == 1)) / (1 + slope**2) / layer.in_features),
                "A leaky ReLU keeps (1 + slope²)/2 of z², not 1 + slope².",
            ),
            (
                _repaired(lambda layer, slope: (2 / (1 + slope**2)) ** 2 / layer.in_features),
                "You gave the squared gain over √fan_in as standard deviation; it takes the gain.",
            ),
            (
                _repaired(lambda layer, slope: (2 / (1 + slope**2) / layer.in_features) ** 2),
                "You gave the variance where a standard deviation is expected.",
            ),
            (
                _repaired(
                    lambda layer, slope: calculate_gain("leaky_relu", slope) ** 2 / layer.in_features,
                    shift=-1,
                ),
                "A layer makes up for the activation behind it; you took the slope of the one in front.",
            ),
        ),
        hints=(
            "What does a leaky ReLU keep of E z², and which layer has to make up for it?",
            "It keeps (1 + slope²)/2: Var(w) = 2/((1 + slope²) fan_in), and 1/fan_in for the last layer.",
        ),
        because="Each layer makes up for the activation that follows, the last one for none.",
        solution="A leaky ReLU keeps (1 + slope²)/2 of E z², and no activation is a slope of 1:",
    ),
    Open(
        statement="Draw the map of scale against depth again with Adam, at rate 0.001. Which half of the "
        "funnel moves, by how much, and why? Is the limit on either side still a curve $c^H = "
        "\\text{const}$? Answer in a sentence or two.",
        stars=3,
        minutes=20,
        hints=(
            "Change the optimizer in the notebook's accuracy_by_factor, and add smaller factors.",
            "What does Adam see of a gradient's size, and what of a loss that starts in the thousands?",
        ),
        because="both halves move (mean accuracy of two networks after 100 steps, SGD with momentum against "
        "Adam). Below: 8 layers with He/2 go from 0.13 to 0.76, 16 layers with He/√2 from 0.10 to 0.52, "
        "because Adam divides the size of g out, down to ε. Above: 8 layers with 2 · He go from nan or "
        "guessing to 0.59, because a huge gradient makes no huge step either. Both limits still close in on "
        "He with depth; that they are curves c^H = const is not to be expected any more, as ε, the rate and "
        "the 100 steps set them.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
