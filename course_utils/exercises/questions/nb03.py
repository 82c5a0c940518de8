"""Exercises of notebook 03: how a tanh signal fades, Xavier's law, and what a gradient is multiplied by."""

import math

import torch
from torch import Tensor, nn

from course_utils.activations import Activation, linear, softsign, tanh
from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values
from course_utils.exercises.running import Unreadable
from course_utils.exercises.trying import in_place
from course_utils.initializers import xavier_normal_
from course_utils.mean_field import chi_1, second_moments
from course_utils.network_laws import exact_log_growth, log_second_moment_law

_SINE = math.sqrt(second_moments(Activation("sin", torch.sin, torch.cos), 1.0, 400)[-1])
_SOFTSIGN = math.sqrt(second_moments(softsign, 1.0, 500)[-1])
_CUBE = 2 * math.sqrt(2 / math.pi)  # E |Z|³
_CHI = float(chi_1(tanh, 1.25**2 * second_moments(tanh, 1.25, 200)[-1], 1.25))  # at the fixed point
_FIRST_CHI = float(chi_1(tanh, 1.25**2, 1.25))
_WAY_BACK = chi_1(tanh, second_moments(tanh, 1.0, 400)[100:400])  # of layers 400, ..., 101
_TANH = math.sqrt(log_second_moment_law(tanh, 1.0, 40, 200)[1][-1])
_LINEAR = math.sqrt(41 * exact_log_growth(linear, 1.0, 200)[1])  # 40 layers and the input


def _sigmoid_network(seed: int) -> nn.Sequential:
    """Return a sigmoid network of ten layers with Xavier weights."""
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for _ in range(10) for layer in (nn.Linear(128, 128), nn.Sigmoid())]
    for layer in layers[::2]:
        xavier_normal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers).double()


def _check_rescaled(weights: list[Tensor], model: nn.Sequential) -> None:
    """Check that the weights of a model are one multiple of what they were. Raises: Unreadable."""
    factors = []
    for before, layer in zip(weights, model[::2], strict=True):
        after = layer.weight.detach()
        factors.append(((after * before).sum() / before.square().sum()).item())
        if (after - factors[-1] * before).norm() > 1e-4 * after.norm():
            raise Unreadable("weights are no multiples of what they were: rescale them, without a new draw")
    if max(factors) - min(factors) > 0.01 * abs(factors[0]):
        raise Unreadable(
            f"the layers are alike, and get factors from {min(factors):.3g} to {max(factors):.3g}"
        )


def _forward_and_back(repair) -> Values:
    """Return the RMS of 2h - 1 in the last layer and the factor on a gradient's RMS, of two networks."""
    found = []
    for seed in (1, 2):
        model = _sigmoid_network(seed)
        weights = [layer.weight.detach().clone() for layer in model[::2]]
        with torch.no_grad():
            in_place(repair, model)
        _check_rescaled(weights, model)
        generator = torch.Generator().manual_seed(seed + 10)
        x, u = torch.randn(2, 64, 128, generator=generator).double()
        x = torch.sigmoid(x).requires_grad_()
        h = model(x)
        (gradient,) = torch.autograd.grad((h * u).sum(), x)
        found += [rms.item() for rms in ((2 * h - 1).square().mean().sqrt(), gradient.square().mean().sqrt())]
    return tuple(found)


def repair(model):
    """Scale the weights by 4, and let each bias take away what the mean ½ of the inputs adds."""
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 4
            layer.bias.data = -layer.weight.data.sum(dim=1) / 2


def _centred(scale=4.0, *, by=1.0, dim=1, sign=-1, first=True):
    """Return a repair that scales weights, and sets biases `by` times as large as those that centre."""

    def wrong(model) -> None:
        for place, layer in enumerate(model[::2]):
            layer.weight *= scale
            if first or place:
                layer.bias.copy_(sign * by * layer.weight.sum(dim=dim) / 2)

    return wrong


QUESTIONS = (
    Number(
        statement="A tanh network has weights $N(0, 1/n)$, biases 0, and $n \\to \\infty$. The input has RMS "
        "1. What is the RMS after 1,250 layers?",
        stars=1,
        minutes=2,
        answer=1 / math.sqrt(2 * 1250),
        tolerance=0.02,
        mistakes=(
            (1 / 2500, "That is the second moment, 1/(2L); the RMS is its root."),
            (1 / math.sqrt(1250), "The 2 is missing: 1/q grows by 2 in each of the 1,250 layers, not by 1."),
            (1.0, "So it would be without the tanh: 1/n keeps a linear signal, and tanh takes from it."),
            (
                math.exp(1250 / 100 * math.log(0.0712)),
                "That continues 0.0712 after 100 layers as an exponential; tanh at gain 1 has a power law.",
            ),
        ),
        hints=("By how much does 1/q grow in each layer?", "1/q_L is about 2L = 2,500, and the RMS is √q."),
        because="1/q grows by 2 in each layer, and 1/√2500 = 0.02.",
        solution="For small q a layer gives q' = q − 2q², so 1/q grows by 2: 1/q = 2,500 and √q = 0.02.",
    ),
    Number(
        statement="`nn.Linear(120, 480)` gets Xavier's law, uniform on $[-a, a]$, gain 1. What is $a$?",
        stars=1,
        minutes=2,
        answer=math.sqrt(6 / (120 + 480)),
        mistakes=(
            (math.sqrt(2 / 600), "That is the standard deviation; U(−a, a) has the variance a²/3."),
            (math.sqrt(3 / 120), "That keeps the forward signal alone, with the 120 inputs."),
            (math.sqrt(3 / 480), "That keeps the gradient alone, with the 480 outputs."),
            (1 / math.sqrt(120), "That is nn.Linear's default, 1/√fan_in."),
            (math.sqrt(3 / 600), "The variance is 1 over the *mean* of 120 and 480, not over their sum."),
            (2 * 3 / 600, "That is a²; take the root."),
        ),
        hints=("Which variance does Xavier ask for, and which has U(−a, a)?", "a²/3 = 2/(120 + 480)."),
        because="a²/3 = 2/600.",
        solution="Var(w) = 2/(120 + 480), and a²/3 = Var(w): a = √(6/600) = 0.1.",
    ),
    Number(
        statement="Replace tanh by $\\sin z = z - \\frac{z^3}{6} + \\dots$ Weights $N(0, 1/n)$, biases 0, $n "
        "\\to \\infty$, input of RMS 1. What is the RMS after 400 layers?",
        stars=2,
        minutes=8,
        answer=_SINE,
        tolerance=0.02,
        mistakes=(
            (1 / math.sqrt(800), "That is the law of tanh, whose cubic term is z³/3, twice as large."),
            (_SINE**2, "That is the second moment; the RMS is its root."),
            (math.sqrt(3 / 400), "E Z⁴ = 3 is missing: the mean of z⁴ is 3q², not q²."),
            (math.sqrt(2 / 400), "The square of z − z³/6 has the term −2z⁴/6, not −z⁴/6."),
            (1 / math.sqrt(6 * 400), "The cubic term's 1/6 is missing: you took z − z³."),
        ),
        hints=(
            "Expand sin² to fourth order and take the mean, as the notebook does for tanh.",
            "E sin² = q − ⅓ · 3q²; by how much does 1/q grow?",
        ),
        because="q' = q − q², so that 1/q grows by 1 in each of the 400 layers.",
        solution="sin² z = z² − z⁴/3 + ..., so q' = q − q², 1/q' = 1/q + 1, q_L = 1/L and RMS = 1/√400 = "
        "0.05. For z − cz³ in general it is q_L = 1/(6cL).",
    ),
    Number(
        statement="A tanh network of gain 1.25, zero biases, infinite width, has settled at its fixed point "
        "$q^*$. By which factor do 40 layers multiply the RMS of a gradient, on its way back? (`mean_field` "
        "computes $q^*$ and $\\chi_1$; assume gradient independence.)",
        stars=2,
        minutes=5,
        answer=_CHI**20,
        tolerance=0.02,
        mistakes=(
            (_CHI**40, "χ_1 multiplies the squared gradient; 40 layers multiply the RMS by its root."),
            (_CHI**-20, "The other way round: that is 1 over the factor."),
            (math.sqrt(_CHI), "That is the factor of one layer; there are 40."),
            (1.25**40, "So it would be where tanh' = 1; at q* the units are partly saturated."),
            (_FIRST_CHI**20, "You took q = gain² of the first layer; the network has settled at q*."),
            (40 * math.sqrt(_CHI), "Layers multiply: 40 factors make a power, not a sum."),
        ),
        hints=(
            "`mean_field.fixed_point(tanh, 1.25)` is q*; what does a layer do to a squared gradient?",
            "The RMS is multiplied by √χ_1 in each layer.",
        ),
        because="√χ_1 = 1.024 is little in one layer, and 2.56 in 40.",
        solution="q* = 0.326, χ_1(q*) = 1.048, and χ_1^(40/2) = 2.56.",
    ),
    Choice(
        statement="The RMS of a deep sigmoid network with Xavier weights is 0.51 in each layer. Which "
        "measurement in layer 20 shows that the network is dead, that is, ignores its input? The standard "
        'deviation "over units", that "over inputs", the "largest output", or the "saturated share" of units '
        "($h$ below 0.01 or above 0.99)?",
        stars=2,
        minutes=3,
        options={
            "over inputs": "The same unit gives the same number for all inputs, up to 3e-13: what is left is "
            "the mean ½ and a pattern that the weights alone set.",
            "over units": "It stays near 0.12 in each layer: units differ because their weights do, whatever "
            "the input is.",
            "largest output": "It is about 0.8, as in a healthy network.",
            "saturated share": "With q* = 0.26, |z| is hardly ever above 2: no unit saturates.",
        },
        answer="over inputs",
        hints=(
            "Which of these numbers would change if the input did not matter?",
            "The notebook's network has a standard deviation of 5e-7 in layer 10; of what?",
        ),
        solution="χ_1 = 0.056 multiplies the squared difference of two inputs, too, once they are close: a "
        "factor of 0.24 per layer, 3e-13 in twenty, while RMS and spread over units stay.",
    ),
    Experiment(
        statement="Measure the standard deviation of $\\ln m_L$ over 4,000 networks or more, of width 200 "
        "and 40 layers, with weights $N(0, 1/n)$ and inputs $N(0, 1)$: with tanh in each layer (`tanh`) and "
        "without (`linear`). `propagation.norm_chain` is fast.",
        stars=2,
        minutes=8,
        answer={"tanh": _TANH, "linear": _LINEAR},
        tolerance=0.05,  # 4,000 networks give a standard deviation to 1.1 %, the law for tanh to 1 %
        mistakes=(
            ({"tanh": _TANH / 2, "linear": _LINEAR / 2}, "That is the spread of ln RMS; m is its square."),
            ({"tanh": _TANH**2, "linear": _LINEAR**2}, "These are variances; take the root."),
            (
                {"tanh": _LINEAR, "linear": _LINEAR},
                "The tanh network spreads less: its map pulls deviations back; is the tanh in yours?",
            ),
            ({"tanh": _LINEAR, "linear": _TANH}, "These two are in each other's place."),
            (
                {"tanh": _TANH / math.log(10), "linear": _LINEAR / math.log(10)},
                "Those are decimal logarithms; ln is the natural one.",
            ),
        ),
        hints=(
            "`second_moment[:, -1]` of a profile holds m_L, one for each network.",
            "np.log(norm_chain(tanh, 1.0, 40, 200, count=4000, generator=...).second_moment[:, -1]).std()",
        ),
        because="The variances are near 2L/(3n) and 2L/n: tanh's map pulls large signals down more than "
        "small ones, and forgets two thirds of the noise.",
        solution="Var ln m is about 2L/(3n) = 0.13 for tanh and 2(L + 1)/n = 0.41 for linear layers (the "
        "input counts as one): standard deviations of about 0.37 and 0.64.",
    ),
    Number(
        statement="Softsign, $z/(1 + |z|) = z - z|z| + \\dots$, is odd with slope 1, but its slope has a "
        "kink at 0. Weights $N(0, 1/n)$, biases 0, $n \\to \\infty$, input of RMS 1: what is the RMS after "
        "500 layers?",
        stars=3,
        minutes=12,
        answer=_SOFTSIGN,
        tolerance=0.02,
        mistakes=(
            (1 / math.sqrt(1000), "That is tanh's law; the first term that softsign loses is z|z|, not z³."),
            (_SOFTSIGN**2, "That is the second moment; the RMS is its root."),
            (
                1 / (2 * _CUBE * 500),
                "q loses 2 E|Z|³ q^(3/2), but the RMS r = √q only half as much: dq = 2r dr.",
            ),
            (1 / 500, "E|Z|³ is missing: for normal z the mean of |z|³ is not q^(3/2)."),
            (
                1 / (_CUBE / 2 * 500),
                "Either the 2 in −2z²|z| is missing, or you took E|Z| = 0.80 for E|Z|³.",
            ),
        ),
        hints=(
            "Write the law for r = √q: what does one layer take from it, to leading order?",
            "φ² = z² − 2|z|³, so q' = q − 2 E|Z|³ r³, with E|Z|³ = 2√(2/π) = 1.6.",
        ),
        because="1/r, not 1/r², grows by a constant, E|Z|³ = 1.6, so that RMS falls as 1/L.",
        solution="φ² = z² − 2|z|³ + ..., so q' = q − 2a r³ with a = E|Z|³ = 2√(2/π), r' = r − a r², and 1/r "
        "grows by a = 1.596 per layer: RMS = 1/(1.596 · 500) = 0.00125. The term z|z| is to blame.",
    ),
    Number(
        statement="At gain 1, $\\chi_1 \\to 1$ with depth, yet the product of all $\\chi_1$ does not settle. "
        "A gradient with respect to the output of tanh layer 400 has RMS 1. Which RMS does it have at the "
        "output of layer 100? (Zero biases, infinite width, gradient independence.)",
        stars=3,
        minutes=10,
        answer=math.sqrt(_WAY_BACK.prod()),
        tolerance=0.03,
        mistakes=(
            (1.0, "Each factor is nearly 1, but there are 300 of them, and the sum of 1/l has no limit."),
            (
                _WAY_BACK.prod() ** -0.5,
                "The other way round, that is 1 over the factor: χ_1 is below 1, and gradients shrink.",
            ),
            (float(_WAY_BACK.prod()), "The product of the χ_1 is that of squared gradients; take the root."),
            (
                float(_WAY_BACK[0]) ** 150,
                "You took layer 100's factor for all 300 layers; it comes nearer to 1 as q falls.",
            ),
            (
                float(_WAY_BACK[-1]) ** 150,
                "You took layer 400's factor for all 300 layers; where q is larger they cost more.",
            ),
        ),
        hints=(
            "Expand χ_1 = E tanh'(z)² for small q, and insert q = 1/(2l).",
            "χ_1 = 1 − 2q = 1 − 1/l; what is the product from 101 to 400?",
        ),
        because="The product of 1 − 1/l telescopes to 100/400, and the RMS is its root.",
        solution="tanh'² = 1 − 2z² + ..., so χ_1 = 1 − 2q = 1 − 1/l, and the product over l = 101 ... 400 is "
        "100/400. Its root is 1/2: over L layers gradients fall as 1/√L, like the signal, a power law that "
        "even 10,000 layers survive.",
    ),
    Function(
        statement="`model` alternates `nn.Linear` (square, Xavier weights, biases 0) and `nn.Sigmoid`; its "
        "inputs are outputs of sigmoids, too. Write `repair`: rescale the weights (no new draw) and set the "
        "biases in place, so that it becomes a tanh network of gain 1 in disguise: $2h - 1$ is the signal.",
        stars=3,
        minutes=12,
        stub="def repair(model):",
        measure=_forward_and_back,
        names=(
            "RMS of 2h − 1 after ten layers",
            "factor on a gradient's RMS",
            "the same of a second network",
            "and of its gradient",
        ),
        right=repair,
        tolerance=0.02,  # nothing is random once the weights are there
        mistakes=(
            (
                _centred(4.0, by=0.0),
                "In each z ½ΣW is left over: without biases it stays, with −ΣW it turns its sign.",
            ),
            (
                _centred(1.0),
                "The signal is centred, but σ has slope ¼, and at gain 1 it loses that per layer.",
            ),
            (
                _centred(4.0, by=0.25),
                "You took the biases from the weights before they were scaled; the order matters.",
            ),
            (
                _centred(4.0, dim=0),
                "You summed over outputs: unit i adds up row i of `weight`, which is (out, in).",
            ),
            (_centred(4.0, sign=1), "The sign: the inputs' mean adds ½ΣW, which the bias has to take away."),
            (
                _centred(4.0, first=False),
                "The first layer's inputs come from sigmoids as well: centre it, too.",
            ),
            (
                _centred(2.0),
                "σ(z) = ½ + ½ tanh(z/2) has two factors of ½: a factor of 2 on the weights is half the "
                "repair.",
            ),
            (
                _centred(10.15, by=0.0),
                "That is critical with zero biases, too, but the mean stays: centre the units by biases.",
            ),
        ),
        hints=(
            "The notebook writes sigmoid(Wh + b) − ½ as a tanh; which b and which scale does that take?",
            "Weights times 4, then b = −½ times the sum of each row of the new weights.",
        ),
        because="Each layer is 2h' − 1 = tanh(V(2h − 1)) with V the old Xavier weight.",
        solution="With b = −½ΣW it is z = ½W(2h − 1), and 2σ(z) − 1 = tanh(z/2) = tanh(¼W(2h − 1)): multiply "
        "W by 4.",
    ),
    Open(
        statement="A colleague raises the gain of a 60-layer tanh network until the outputs have RMS 0.95, "
        '"because activations should have standard deviation 1". What do you tell them, and what would you '
        "measure to convince them? Two or three sentences.",
        stars=2,
        minutes=5,
        hints=(
            "Where is the price of a large gain paid?",
            "Read the table *The price of a large gain* at RMS 0.95, and take the power of 60.",
        ),
        because="|tanh| < 1, so an RMS of 0.95 needs nearly all units at ±1, that is a gain of about 9; "
        "there each layer multiplies a gradient by more than 2, which makes 10^20 in 60 layers. I would plot "
        "the RMS of the gradient over layers at gains 9 and 1: the first is a straight line upwards on a log "
        "axis, the second bends and has lost a factor of nine. A signal of 0.1 at gain 1 is small, and "
        "healthy.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
