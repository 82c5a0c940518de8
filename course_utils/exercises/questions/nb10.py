"""Exercises of notebook 10: why deep ReLU gradients look like noise, and a start that removes the noise."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from course_utils.exercises.asking import Choice, Function, Number, Open, Unreadable, Values
from course_utils.exercises.trying import in_place
from course_utils.initializers import kaiming_normal_, lecun_normal_, orthogonal_
from course_utils.mean_field import relu_cosine_map
from course_utils.network_laws import gradient_correlations

_BATCH = 8  # images
_KINK = (1 - 0.5) ** 2 / (1 + 0.5**2)  # what a leaky ReLU of slope 1/2 has of a ReLU's effect on pairs


def _one_layer(degrees: int) -> float:
    """Return the correlation of gradients after one plain layer."""
    return float(gradient_correlations(360 // degrees, 1, False, 0.0, 1.0)[1])


def _batch_norm(cosine: float) -> float:
    """Return twice the share of units that are on for both of two inputs of this cosine."""
    return 1 - math.acos(cosine) / math.pi


def _depth_of_an_eighth(kink: float, angle: float) -> float:
    """Return the layer in which the correlation of gradients falls through 1/8."""
    c, log_rho, layer = math.cos(angle), 0.0, 0
    while log_rho > -math.log(8):
        log_rho += math.log1p(-kink * math.acos(c) / math.pi)
        c += kink * (float(relu_cosine_map(c)) - c)
        layer += 1
    return layer


def _straightness(repair) -> Values:
    """Return for two networks: part of the output that is not linear, and norms kept by the hidden layers."""
    found = []
    for widths in ((12, 32, 32, 32, 5), (20, *[48] * 8, 3)):
        layers = [part for fans in pairwise(widths) for part in (nn.Linear(*fans), nn.ReLU())][:-1]
        model = nn.Sequential(*layers)
        in_place(repair, model)
        if [type(part) for part in model] != [type(part) for part in layers]:
            raise Unreadable("linear layers and ReLUs are to stay where they are")
        if not model[-1].weight.any():
            raise Unreadable("the last layer's weights are all 0")
        x, y = torch.randn(2, 100, widths[0])
        with torch.no_grad():
            bent = model(x + y) - model(x) - model(y)
            behind = [model[:place](x).norm(dim=1) / x.norm(dim=1) for place in range(2, len(model), 2)]
            kept = torch.stack(behind).clamp(1e-12)  # behind each ReLU
        size = (model(x).square() + model(y).square()).sum() + 1e-12
        parts = (bent.square().sum() / size).sqrt(), kept.log().mean().exp(), kept.std() / kept.mean()
        found += [round(part.item(), 4) for part in parts]
    return tuple(found)


def repair(model):
    """Fill a ReLU network so that half of its units mirror the others, and it starts as an isometry."""
    layers = [part for part in model if isinstance(part, nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            first, last = layer is layers[0], layer is layers[-1]
            rows, columns = layer.weight.shape
            half = torch.empty(rows if last else rows // 2, columns if first else columns // 2)
            nn.init.orthogonal_(half)
            row = half if first else torch.cat([half, -half], dim=1)
            layer.weight.copy_(row if last else torch.cat([row, -row]))
            layer.bias.zero_()


def _unpaired(init_: Callable) -> Callable:
    """Return a repair that fills each weight by `init_`, and zeroes the biases."""

    def result(model):
        for layer in model[::2]:
            init_(layer.weight)
            nn.init.zeros_(layer.bias)

    return result


def _paired(
    init_: Callable = orthogonal_,
    mirror: float = -1.0,
    last_sign: float = -1.0,
    pair_first: bool = True,
    zero_biases: bool = True,
    first_factor: float = 1.0,
    block_factor: float = 1.0,
) -> Callable:
    """Return a `repair` in which one step may be another one."""

    @torch.no_grad()
    def result(model):
        layers = model[::2]
        for layer in layers:
            first, last = layer is layers[0], layer is layers[-1]
            rows, columns = layer.weight.shape
            if first and not pair_first:
                orthogonal_(layer.weight)
            else:
                half = init_(torch.empty(rows if last else rows // 2, columns if first else columns // 2))
                sign = last_sign if last else -1.0
                row = half if first else torch.cat([half, sign * half], dim=1)
                layer.weight.copy_(row if last else torch.cat([row, (-1.0 if first else mirror) * row]))
            if not last:
                layer.weight.mul_(first_factor if first else block_factor)
            if zero_biases:
                layer.bias.zero_()

    return result


QUESTIONS = (
    Number(
        statement="A wide ReLU network with one hidden layer and zero biases gets two inputs that form an "
        "angle of 72°. What is the correlation $\\rho$ of its two gradients?",
        stars=1,
        minutes=3,
        answer=_one_layer(72),
        mistakes=(
            (1 - _one_layer(72), "That is the share of units that tell the two inputs apart."),
            (_one_layer(72) / 2, "That share of all units is on for both; for 0° it would be ½, and ρ is 1."),
            (math.cos(math.radians(72)), "That is the cosine of the two inputs, not of their gradients."),
            (
                float(relu_cosine_map(math.cos(math.radians(72)))),
                "That is the cosine of the hidden layers h; gradients depend on which units are on.",
            ),
        ),
        hints=(
            "Which share of the units is on for one input and off for the other?",
            "It is θ/π, with θ = 0.4π.",
        ),
        because="Two fifths of the units, θ/π, tell the two inputs apart, and ρ is the rest.",
        solution="ρ = 1 − θ/π with θ = 0.4π: 0.6.",
    ),
    Number(
        statement="A residual ReLU network of 24 layers with normalized branches of size $\\beta = 0.1$ has "
        "gradients that are smooth enough for you. Which $\\beta$ gives a network of 54 layers, wide as "
        "well, "
        "gradients about as smooth?",
        stars=1,
        minutes=3,
        answer=0.1 * math.sqrt(24 / 54),
        tolerance=0.03,
        mistakes=(
            (0.1, "54 branches of the same size roughen the gradient more than 24 do."),
            (0.1 * 24 / 54, "Branches add their variances β², not their sizes."),
            (0.1 * math.sqrt(54 / 24), "More branches must be smaller ones."),
            (0.01 * 24 / 54, "That is β²: take the root."),
        ),
        hints=("What do independent branches add up?", "Keep L β² at 24 · 0.01."),
        because="L β² = 0.24 stays: β = 0.1 √(24/54).",
        solution="Branches add variances, so that L β² = 24 · 0.01 = 0.24 counts: β = √(0.24/54) = 0.0667.",
    ),
    Choice(
        statement="For two unrelated inputs and 50 plain He layers of 8,192 units, a colleague predicts the "
        "gradient correlation $2^{-50}$; measured is 0.001. Which assumption failed: `right angles` in every "
        "layer, `large width`, `fresh weights` on the way back, or `zero biases`?",
        stars=2,
        minutes=4,
        options={
            "right angles": "Plain layers pull angles to 0, θ ≈ 3π/l, and most factors 1 − θ/π are near 1.",
            "large width": "At 8,192 units an angle is known to a percent or so, and 2⁻⁵⁰ is off by 10¹².",
            "fresh weights": "Reused weights add about 1.8/n, which is 0.0002 at 8,192 units: too little.",
            "zero biases": "He's law comes with zero biases, and random ones only make inputs more alike.",
        },
        answer="right angles",
        hints=("When does one layer contribute a factor of ½?", "What do plain ReLU layers do to an angle?"),
        solution="A factor of ½ = 1 − θ/π needs θ = π/2, which holds in layer 0 only: the ReLU map makes "
        "inputs parallel, and the product of 1 − θ/π falls as a power, at 50 layers to 0.0009.",
    ),
    Number(
        statement="Three wide He layers, each with batch normalization before its ReLU, get a batch of only "
        "$B = 8$ unrelated inputs. What is the correlation of the gradients of two of them? (Statistics of "
        "the batch count as constants.)",
        stars=2,
        minutes=5,
        answer=_batch_norm(-1 / (_BATCH - 1)) ** 3,
        mistakes=(
            (
                2.0**-3,
                "That is for very large batches; subtracting the mean of 8 inputs makes angles obtuse.",
            ),
            (_batch_norm(-1 / _BATCH) ** 3, "The cosine of two deviations from a mean of B is not −1/B."),
            (_batch_norm(1 / (_BATCH - 1)) ** 3, "Deviations from a common mean point away from each other."),
            (_batch_norm(-1 / (_BATCH - 1)), "That is one layer of the three."),
        ),
        hints=(
            "Eight deviations from their mean add up to 0: what is the cosine of two of them?",
            "It is −1/7, in every layer; and a layer keeps 1 − θ/π.",
        ),
        because="The cosine is −1/7 in every layer, a factor of 0.454, and three of those are 0.094.",
        solution="Deviations of 8 inputs sum to 0, so cos θ = −1/7 and 1 − θ/π = 0.4544 in each layer (the "
        "notebook's ½ − 1/(7π), to first order). Its cube is 0.0938.",
    ),
    Choice(
        statement="A looks-linear network, weights $[W', -W']$ behind $(\\varphi(y), \\varphi(-y))$, gets "
        "another $\\varphi$ in the place of ReLU: `leaky ReLU`, `GELU` ($z$ times the normal distribution "
        "function), `SiLU` ($z$ times the sigmoid), or `ELU` ($e^z - 1$ on the left). With which one does it "
        "not start as a linear map?",
        stars=2,
        minutes=6,
        options={
            "ELU": "φ(y) − φ(−y) = y + 1 − e^(−y) for y > 0, not proportional to y: only one side is curved.",
            "leaky ReLU": "φ(y) − φ(−y) = (1 + a) y: linear, only the gain has to be divided by 1 + a.",
            "GELU": "y Φ(y) + y Φ(−y) = y, since Φ(y) + Φ(−y) = 1: exactly linear, curved as each half is.",
            "SiLU": "y σ(y) + y σ(−y) = y, since σ(y) + σ(−y) = 1: exactly linear, curved as each half is.",
        },
        answer="ELU",
        hints=("The layer computes W' times a difference: which?", "Is φ(y) − φ(−y) proportional to y?"),
        solution="The layer is W'(φ(y) − φ(−y)), and only the odd part of φ counts. It is y/2 for ReLU, GELU "
        "and SiLU, (1 + a)y/2 for leaky ReLU, and curved for ELU.",
    ),
    Number(
        statement="A wide leaky ReLU network, slope $a = \\frac12$ on the left, no biases, lengths kept, "
        "gets "
        "two inputs only 0.05 (radians) apart. After how many layers has the correlation of their gradients "
        "fallen to $\\frac18$?",
        stars=3,
        minutes=12,
        answer=_depth_of_an_eighth(_KINK, 0.05),
        tolerance=0.03,
        mistakes=(
            (
                _depth_of_an_eighth(1.0, 0.05),
                "That is plain ReLU; slopes of 1 and ½ differ less than 1 and 0.",
            ),
            (_depth_of_an_eighth(0.5, 0.05), "1 − a = ½ is one slope's change; a correlation has products."),
            (
                _depth_of_an_eighth(0.25, 0.05),
                "(1 − a)² = ¼ is what the kink takes; divide it by 1 + a², twice the mean squared slope.",
            ),
            (
                7 * 3 * math.pi / (_KINK * 0.05),
                "So many layers take the angle to 1/8 of 0.05; ρ is a product over all of them.",
            ),
            (
                (8 ** (1 / (3 * _KINK)) - 1) * 3 * math.pi / (_KINK * 0.05),
                "You took the power 3s = 3/5; but s acts on the factor of a layer and on its angle.",
            ),
        ),
        hints=(
            "One layer multiplies ρ by 1 − sθ/π, and c' = c + s (k(c) − c), with ReLU's map k. What is s?",
            "s = (1 − a)²/(1 + a²); so 1/θ grows by s/(3π) a layer, and ρ ≈ (1 + sLδ/(3π))⁻³.",
        ),
        because="s = 1/5, and ρ = (1 + sLδ/(3π))⁻³ is 1/8 at sLδ = 3π: five times ReLU's depth.",
        solution="Slopes differ with probability θ/π, so a layer keeps 1 − sθ/π, s = (1 − a)²/(1 + a²) = "
        "1/5, "
        "and 1/θ grows by s/(3π). The product is (1 + sLδ/(3π))⁻³, 1/8 at L = 3π/(0.2 · 0.05) = 942: the "
        "power 3 does not depend on a.",
    ),
    Function(
        statement="A model is an `nn.Sequential` of `nn.Linear` and `nn.ReLU` in turn; hidden widths are "
        "equal, even, and at least twice the inputs. Write `repair`: refill its weights and biases in place, "
        "so that it starts as a linear map, and its hidden layers keep the norm of every input.",
        stars=3,
        minutes=15,
        stub="def repair(model):",
        measure=_straightness,
        names=(
            "3 hidden layers: part of the output that is not linear",
            "norms of the hidden layers over that of the input",
            "and its scatter over inputs",
            "8 hidden layers: the part that is not linear",
            "norms of the hidden layers over that of the input",
            "and its scatter",
        ),
        right=repair,
        tolerance=0.03,
        mistakes=(
            (
                _unpaired(lambda weight: kaiming_normal_(weight, nonlinearity="relu")),
                "He's law keeps lengths on average only, and has no pairs: units switch, and outputs bend.",
            ),
            (
                _unpaired(lambda weight: orthogonal_(weight, math.sqrt(2))),
                "Orthogonal weights do not help a ReLU without pairs: half of the units is off.",
            ),
            (
                _paired(mirror=1.0),
                "Hidden layers hold (relu(My), relu(My)), whose halves cancel in the next layer: nothing is "
                "left.",
            ),
            (
                _paired(init_=lecun_normal_),
                "Linear it is; but a Gaussian M stretches some directions more than others.",
            ),
            (
                _paired(init_=lambda half: orthogonal_(half, math.sqrt(2))),
                "Linear it is; but a pair loses nothing to the ReLUs, so that √2 makes the norm grow in "
                "each layer.",
            ),
            (
                _paired(block_factor=math.sqrt(0.5)),
                "Linear it is; but one of each pair is always 0, so that 1/√2 makes the norm shrink in each "
                "block.",
            ),
            (
                _paired(first_factor=math.sqrt(2)),
                "Linear it is; but M above −M keeps the norm behind the ReLUs as it stands: √2 is too much.",
            ),
            (_paired(last_sign=1.0), "The last layer adds the halves, relu(y) + relu(−y) = |y|."),
            (
                _paired(pair_first=False),
                "The first layer must make pairs, M above −M: later layers only hand them on.",
            ),
            (
                _paired(zero_biases=False),
                "The biases are still there: in free ones the two units of a pair differ.",
            ),
        ),
        hints=(
            "Let half of the units mirror the other half, and see what the first and the last layer must do.",
            "First M above −M, then [[M, −M], [−M, M]], last [V, −V]; M with orthonormal columns.",
        ),
        because="Each hidden layer holds a pair (relu(y), relu(−y)), and y is the input, turned.",
        solution="Fill the first layer with M above −M, hidden ones with [[M, −M], [−M, M]], the last with "
        "[V, −V], all biases with 0; M is orthogonal, or has orthonormal columns:",
    ),
    Open(
        statement="A looks-linear network of 100 layers reads digits about as well as a linear classifier. "
        "How would you find out whether its depth is of any use? Name a measurement, and a result that would "
        "convince you.",
        stars=3,
        minutes=6,
        hints=(
            "What would a network that has stayed linear show?",
            "The notebook measured a share of the gradient; and which data does a linear classifier fail on?",
        ),
        because="take data on which a linear classifier fails, and compare looks-linear networks of 2, 10 "
        "and "
        "100 layers, each at its best rate: depth is of use if test accuracy rises beyond the scatter of "
        "seeds. "
        "On the trained network, the varying share of the gradient says how far it is from a linear map, and "
        "resetting half of the layers says where that sits. That 100 layers train says only that signals "
        "pass.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
