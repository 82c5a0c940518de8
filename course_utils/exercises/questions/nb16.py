"""Exercises of notebook 16: how far one step moves each layer, and rates that make all widths move alike."""

import math

from torch import Tensor, nn

from course_utils.activations import relu
from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values
from course_utils.exercises.running import Unreadable
from course_utils.quadrature import gaussian_expectation

_BASE, _WIDE = 64, 1024
_MEAN_OUTPUT = float(gaussian_expectation(relu, 2 * math.sqrt(2)))  # of ReLUs whose RMS is 2
_PIXELS = 784


def _own_equals(inherited: float) -> float:
    """Return n with n / √π = inherited · ‖x‖₁ for standard normal pixels: what layer 2 moves by itself."""
    return math.sqrt(math.pi) * inherited * _PIXELS * math.sqrt(2 / math.pi)


def _grown(*exponents: float) -> dict[str, float]:
    """Return the factors of changes that go with these powers of n, from width 256 to 1,024."""
    return dict(zip(("first", "second", "output"), (4.0**power for power in exponents), strict=True))


def _rates(mup_groups) -> Values:
    """Return the rates of each kind of parameter in such groups, over the rate that is asked for."""
    found = []
    for n, base in ((64, 16), (24, 48)):  # wider and narrower than what was tuned
        layers = nn.Linear(20, n), nn.ReLU(), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 10)
        model = nn.Sequential(*layers)
        pairs = _rates_in(mup_groups(model, 0.01, base))
        held = [held for held, _ in pairs]
        if foreign := len({*held} - {id(p) for p in model.parameters()}):
            raise Unreadable(f"{foreign} tensors in the groups are no parameters of the model")
        for name, p in model.named_parameters():
            if held.count(id(p)) != 1:
                raise Unreadable(f"{name} is in {held.count(id(p))} groups; each parameter is to be in one")
        rates = {which: rate / 0.01 for which, rate in pairs}
        biases = [rates[id(layer.bias)] for layer in model[::2]]
        found += [rates[id(layer.weight)] for layer in model[::2]]
        found.append(max(biases, key=lambda rate: abs(rate - 1)))
    return tuple(found)


def _rates_in(groups) -> list[tuple[int, float]]:
    """Return id and rate of each parameter in groups as torch's optimizers take them, named or not."""
    pairs = []
    try:
        for group in groups:
            if more := {*group} - {"params", "lr", "name"}:
                raise Unreadable(f"groups set {', '.join(sorted(more))}, too; rates alone are asked for")
            params = [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
            for p in params:
                pairs.append((id(p[1] if isinstance(p, tuple) else p), float(group["lr"])))
    except (TypeError, KeyError, IndexError):
        raise Unreadable('a list of dictionaries with "params" and "lr" is to be returned') from None
    return pairs


def mup_groups(model, rate, base):
    """Return the groups of μP for Linear, ReLU, Linear, ReLU, Linear."""
    first, hidden, last = model[0], model[2], model[4]
    fixed = [first.weight, first.bias, hidden.bias, last.bias]
    scaled = [hidden.weight, last.weight]
    return [
        {"params": fixed, "lr": rate},
        {"params": scaled, "lr": rate * base / hidden.in_features},
    ]


def _groups(factors, with_biases=False):
    """Return a `mup_groups` whose matrices, and biases if told, have the rates rate * factors(base / n)."""

    def mup_groups(model, rate, base):
        groups = []
        for layer, factor in zip(model[::2], factors(base / model[2].in_features), strict=True):
            groups.append({"params": layer.weight, "lr": rate * factor})
            groups.append({"params": layer.bias, "lr": rate * factor if with_biases else rate})
        return groups

    return mup_groups


QUESTIONS = (
    Number(
        statement="A ReLU network was tuned at width 64: Adam, learning rate 0.004. Which rate do its hidden "
        "weights get under μP at width 1,024?",
        stars=1,
        minutes=2,
        answer=0.004 * _BASE / _WIDE,
        mistakes=(
            (0.004, "That is the rate of the input weights, whose step does not depend on the width."),
            (
                0.004 * math.sqrt(_BASE / _WIDE),
                "The 1,024 terms pull the same way: they add up as n, not as √n.",
            ),
            (0.004 * _WIDE / _BASE, "A wider layer moves more: its rate must fall, not rise."),
            (0.004 / _WIDE, "The rate was good at width 64: count from there."),
            (
                0.004 * (_BASE / _WIDE) ** 1.5,
                "n^(3/2) is the growth of the logits; a hidden layer moves as n.",
            ),
        ),
        hints=("Look at the row of hidden weights in the table.", "η n₀/n, with n₀ = 64 and n = 1,024."),
        because="16 times as many terms pull the same way, so each may move a sixteenth as far.",
        solution="η n₀/n = 0.004 · 64/1,024 = 0.00025.",
    ),
    Number(
        statement="And the *standard deviation* of its output weights at width 1,024, under μP with base "
        "width 64?",
        stars=1,
        minutes=3,
        answer=math.sqrt(_BASE) / _WIDE,
        tolerance=0.02,
        mistakes=(
            (1 / math.sqrt(_WIDE), "1/√n is the standard one; with it what layer 2 passes on grows as √n."),
            (1 / _WIDE, "With 1/n a network of the base width 64 would differ from the one that was tuned."),
            (_BASE / _WIDE**2, "That is the variance."),
            (_BASE / _WIDE, "That is the factor on the rate."),
            (_BASE / _WIDE**1.5, "n₀/n is the factor on the rate; a standard 1/√n needs another one."),
            (math.sqrt(_BASE / _WIDE), "That is the factor by which the standard 1/√n has to be multiplied."),
        ),
        hints=("n σₒ has to be constant. What is it at the base width?", "At width 64 it is 64/√64 = 8."),
        because="n σₒ stays what it was at width 64, where σₒ = 1/√64.",
        solution="n σₒ = 64/√64 = 8 at every width, so that σₒ = 8/1,024 = √n₀/n = 0.0078.",
    ),
    Number(
        statement="A hidden layer has 400 inputs: outputs, of RMS 2, of wide ReLUs whose pre-activations are "
        "Gaussian of mean 0. Adam makes its first step, with rate 0.001 and one image. How far do the "
        "layer's own weights move the pre-activation of a unit that gets a gradient?",
        stars=2,
        minutes=5,
        answer=0.001 * 400 * _MEAN_OUTPUT,
        tolerance=0.02,
        mistakes=(
            (0.001 * 400 * 2, "You summed 400 times the RMS; the sum is of the outputs, so take their mean."),
            (
                0.001 * math.sqrt(400) * 2,
                "So 400 terms of random signs would add up, as √400; here all of them have one sign.",
            ),
            (
                0.001 * 400 * _MEAN_OUTPUT / math.sqrt(2),
                "You took RMS 2 for the pre-activations below; it is that of the ReLUs' outputs.",
            ),
            (0.001 * _MEAN_OUTPUT, "That is one of 400 terms."),
            (
                0.001 * 400 * 4,
                "You multiplied by h twice, as SGD's step does; Adam's has the gradient's sign only.",
            ),
        ),
        hints=(
            "Each weight moves by 0.001 times a sign. What is summed over the inputs?",
            "Δz = −η sign(δ) Σ h_j, and E h = a/√π for ReLU outputs of RMS a.",
        ),
        because="400 steps of 0.001, each times an output of mean 2/√π, all in one direction.",
        solution="All h_j ≥ 0, so |Δz| = η n E h. RMS 2 behind a ReLU means pre-activations of variance 8, "
        "and E h = √8/√(2π) = 2/√π = 1.128: 0.001 · 400 · 1.128 = 0.45.",
    ),
    Choice(
        statement="A coordinate check of a network that is meant to be μP (Adam): layer 1 and layer 2 are "
        "flat, the change of the logits grows as $\\sqrt n$. What has been left at its standard value? "
        'Answer "output std", "output rate", "hidden rate" or "nothing".',
        stars=2,
        minutes=4,
        options={
            "output std": "What layer 2 passes on goes as n σₒ times its flat move: with σₒ = 1/√n, as √n.",
            "output rate": "n terms of the output's own step pull the same way: the logits would rise as n.",
            "hidden rate": "Then layer 2 would rise as n; it is flat.",
            "nothing": "Under μP all three lines are flat in wide networks; √n doubles from 256 to 1,024.",
        },
        answer="output std",
        hints=(
            "Logits change by two parts. Which powers of n do they carry?",
            "Own part r₃ n, inherited part n σₒ times the move of layer 2: which of them can be √n?",
        ),
        solution="Layer 2 is flat, so r₂ is right. The own part r₃ n would give n¹ with the standard rate. "
        "Left is n σₒ = √n, for σₒ = 1/√n.",
    ),
    Function(
        statement="`model` is an `nn.Sequential` of Linear, ReLU, Linear, ReLU, Linear, hidden layers of one "
        "width. Write `mup_groups`: return groups for `torch.optim.Adam`, dictionaries with `params` and "
        "`lr`, that hold all parameters with the rates of μP; `rate` is the one that was good at width "
        "`base`.",
        stars=2,
        minutes=8,
        stub="def mup_groups(model, rate, base):",
        measure=_rates,
        names=tuple(
            f"lr/rate of {part}, n = {n}"
            for n in (64, 24)
            for part in ("input", "hidden", "output", "the bias furthest from 1")
        ),
        right=mup_groups,
        tolerance=0.02,
        mistakes=(
            (
                _groups(lambda r: (1, 1, 1)),
                "All parameters move alike: that is the standard parametrization.",
            ),
            (_groups(lambda r: (1, r, 1)), "The output weights have n inputs as well, all pulling one way."),
            (
                _groups(lambda r: (r, r, r)),
                "The input weights' step does not grow with n: slowed down, they idle.",
            ),
            (_groups(lambda r: (1, r**0.5, r**0.5)), "Terms that pull the same way add up as n, not as √n."),
            (
                _groups(lambda r: (1, r, r), True),
                "A bias is one number for each unit: it counts as an input weight.",
            ),
            (_groups(lambda r: (1, 1, r)), "The hidden weights have n inputs as well, all pulling one way."),
            (
                _groups(lambda r: (r, r, r), True),
                "You slow all parameters alike: only those that sum over n inputs need it.",
            ),
            (_groups(lambda r: (1, 1 / r, 1 / r)), "You multiply by n/n₀: wide layers need smaller rates."),
        ),
        hints=(
            "Which of the six parameters sum over n inputs that all pull the same way?",
            "Two groups: hidden and output weights with rate · base/n, everything else with rate.",
        ),
        because="Hidden and output weights move n₀/n as far as the rest, at both widths.",
        solution="Two groups: what has n inputs that pull the same way gets η n₀/n, the rest η:",
    ),
    Experiment(
        statement="SGD instead of Adam: one tiny step $-\\eta\\,\\partial L/\\partial w$ on one input. "
        "Network 8–n–n–1, ReLU, He weights, output weights of std $1/\\sqrt n$, no biases; the loss *is* the "
        "output. By which factors do the RMS changes of $h_1$, $h_2$ and the output grow from $n = 256$ to "
        "1,024?",
        stars=3,
        minutes=12,
        answer=_grown(-0.5, 0.5, 1),
        tolerance=0.08,  # at n = 256 layer 2 is 3 % off its power, and 100 networks know a factor to 2 %
        mistakes=(
            (_grown(0, 1, 1.5), "These are Adam's: SGD multiplies by the gradient, not by its sign."),
            (_grown(0, 0, 0), "The signal is the same at all widths, the gradients are not."),
            (_grown(-1, 1, 2), "These are the factors of mean squares; take roots."),
            (_grown(0, 1, 1), "You kept δ fixed; it is made of output weights, of std 1/√n."),
            (
                _grown(-0.5, 0.5, 0.5),
                "The output does more than pass h₂'s change on at random: its weights made that change, and "
                "move themselves.",
            ),
            (
                _grown(-0.5, 0, 0),
                "‖h‖² is no average: it sums n squares, and multiplies δ in layer 2 and the output's error.",
            ),
        ),
        hints=(
            "Write Δz = −η δ ‖h‖² for each layer. How does δ go with n, and how ‖h‖²?",
            "δ goes as n^(−1/2), ‖x‖² not at all, ‖h‖² as n; the output's own step has the error 1.",
        ),
        because="δ falls as n^(−1/2); from layer 2 on ‖h‖² ~ n comes in, and the output has no small δ.",
        solution="Layer 1: δ‖x‖² ~ n^(−1/2), factor ½. Layer 2: δ‖h‖² ~ n^(1/2), factor 2. Output: its own "
        "‖h₂‖² ~ n, and from below ‖h₁‖² Σ w² over the units that are on, ~ n too: factor 4.",
    ),
    Number(
        statement="One input of 784 standard normal numbers, two wide ReLU layers with He weights, one step "
        "of Adam, one rate. At which width $n$ are the two parts of layer 2's move, from its own weights and "
        "inherited from layer 1, equally large in RMS?",
        stars=3,
        minutes=8,
        answer=_own_equals(math.sqrt(1 + 2 / math.pi)),
        tolerance=0.02,
        mistakes=(
            (
                _own_equals(1.0),
                "That is only the random part ξ of what is inherited; γ's share 2/π comes on top.",
            ),
            (
                _own_equals(math.sqrt(2 / math.pi)),
                "That is only the part along δ of what is inherited; ξ adds 1 to its square.",
            ),
            (
                _own_equals(math.sqrt(1 + 2 / math.pi)) * math.sqrt(math.pi / 2),
                "‖x‖₁ sums |x|, whose mean is √(2/π) for standard normal numbers, not 1.",
            ),
            (_PIXELS, "Not as soon as both sums have 784 terms: outputs and pixels differ in size."),
            (
                2 * _PIXELS * math.sqrt(1 + 2 / math.pi),
                "a/√(2π) is the mean output for pre-activations of RMS a; here a is that of the outputs.",
            ),
        ),
        hints=(
            "Which term of Q belongs to the own weights, which to what is inherited?",
            "m = n a/√π with a = 1 against √(1 + 2/π) ‖x‖₁, ‖x‖₁ = 784 √(2/π).",
        ),
        because="n/√π = √(1 + 2/π) · 784 √(2/π): below that width the exponent 1 cannot show.",
        solution="Own: m = n a/√π. Inherited: √(1 + 2/π) ‖x‖₁ with ‖x‖₁ = 784 a √(2/π). Equal at "
        "n = 784 √(2 (1 + 2/π)) = 1,418; the power n¹ is seen only well above.",
    ),
    Open(
        statement="A colleague tunes a rate at width 64 and carries it to width 8,192 by μP; she also "
        "doubles the depth and takes a batch eight times as large. What would you trust, what not, and what "
        "would you measure in the first minute?",
        stars=3,
        minutes=5,
        hints=(
            "For which changes was the table derived?",
            "A coordinate check needs a few steps at a few widths: what else could bend its lines?",
        ),
        because="only the width is covered: at a fixed depth and batch I would expect the rate to move by "
        "less than an octave or two, and most of that at the narrow end, since 64 is not very wide. Depth "
        "and batch have laws of their own and want a sweep at small width. In the first minute I would make "
        "a coordinate check with her loop at widths 64, 512 and 4,096, a few steps each, and look for any "
        "line that rises or falls; and I would compare Adam's ε with the hidden gradients, which fall as "
        "1/n.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
    Number(
        statement="Adam's first update of a matrix of 4,096 rows and 1,024 columns, with rate 0.001, one "
        "input and no entry zero. How large is its spectral norm?",
        stars=2,
        minutes=4,
        answer=0.001 * 2048,
        tolerance=0.02,
        mistakes=(
            (0.001 * (64 + 32), "That is a random matrix of this std; the update has rank one."),
            (0.001 * 4096 * 1024, "That is the sum of all entries; the Frobenius norm is a root."),
            (0.001 * 4096, "You took the rows alone: the norm is √(rows · columns)."),
            (0.001 * 1024, "You took the columns alone: the norm is √(rows · columns)."),
            (0.001 * 1024 / 2, "No entry is zero here: nothing is halved."),
        ),
        hints=(
            "Signs of an outer product: which rank?",
            "Rank one: the spectral norm is the Frobenius norm.",
        ),
        because="the update is sign(δ) sign(h)ᵀ times 0.001, of rank one.",
        solution="0.001 · √(4,096 · 1,024) = 2.05, just what √(fan-out/fan-in) = 2 asks for.",
    ),
    Number(
        statement="AdamW with a weight decay of 0.1 was tuned at width 256. Under μP the network becomes "
        "4,096 wide. Which decay do its hidden matrices get, if they are to decay as fast?",
        stars=2,
        minutes=3,
        answer=0.1 * 4096 / 256,
        tolerance=0.02,
        mistakes=(
            (0.1, "Decay multiplies by the rate, and that has become 16 times smaller."),
            (0.1 * 256 / 4096, "The rate falls already: now it would decay 256 times more slowly."),
            (0.1 * 4, "The rate falls as 1/n, not as 1/√n."),
        ),
        hints=("What is left after T steps?", "exp(−η r λ T), with r = n₀/n: keep r λ."),
        because="r λ is what counts, and r is a sixteenth.",
        solution="r falls to 256/4,096 = 1/16, so λ rises to 16 · 0.1 = 1.6.",
    ),
    Number(
        statement="A residual network without norms has branches times 1/√L. Its rate of 0.004 for Adam was "
        "tuned at 8 blocks. Which rate makes as large a first move at 128 blocks, up to a constant that "
        "tends to 1?",
        stars=2,
        minutes=3,
        answer=0.001,
        tolerance=0.02,
        mistakes=(
            (0.004, "Branches times 1/L keep their rate; with 1/√L the moves of L blocks add up to √L."),
            (0.004 / 16, "L moves, but each of them is multiplied by 1/√L."),
            (0.016, "A deeper network moves further: its rate must fall."),
        ),
        hints=("How does L β go with L?", "L β = √L: fourfold from 8 to 128 blocks."),
        because="L β grows fourfold, so the rate falls fourfold.",
        solution="L β = √L grows by √16 = 4: the rate is 0.004/4 = 0.001.",
    ),
)
