"""Exercises of notebook 15: one matrix for all time steps, with a tanh, an input, or the gate of an LSTM."""

import math

import torch
from torch import nn

from course_utils.activations import tanh
from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values
from course_utils.exercises.trying import in_place
from course_utils.mean_field import chi_1, fixed_point, length_map, output_second_moment

_NOISE = 0.8  # std of the input in 15.4
_SETTLED = float(fixed_point(tanh, 1.0, _NOISE))
_STATE = _SETTLED - _NOISE**2
_SLOPE = float(chi_1(tanh, _SETTLED))


def _settled_with(factor: float) -> tuple[float, float]:
    """Return q at which a squared gradient shrinks by `factor` per step, and the noise that settles there."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if chi_1(tanh, middle) > factor else (low, middle)
    return low, math.sqrt(low - length_map(tanh, low))


_QUIET_Q, _QUIET = _settled_with(0.5 ** (2 / 300))


def _shares_left(remember_) -> Values:
    """Return for two LSTMs of weights 0 which share of small cells is left, its range, and other biases."""
    found = []
    for units, steps in ((12, 8), (30, 90)):
        lstm = nn.LSTM(5, units)
        with torch.no_grad():
            for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0):
                weight.zero_()
            in_place(remember_, lstm, steps)
            start = torch.full((1, 1, units), 1e-3)
            _, (_, end) = lstm(torch.zeros(steps, 1, 5), (torch.zeros_like(start), start))
        share = end.flatten() / 1e-3
        parts = [b.chunk(4) for b in (lstm.bias_ih_l0, lstm.bias_hh_l0)]
        found += [share.mean().item(), (share.max() - share.min()).item()]
        found.append(max(max(i.abs().max(), g.abs().max(), o.abs().max()).item() for i, _, g, o in parts))
    return tuple(found)


def remember_(lstm, steps):
    """Let half of a small cell be left after so many steps."""
    n = lstm.hidden_size
    for bias in (lstm.bias_ih_l0, lstm.bias_hh_l0):
        bias.zero_()
    kept = 0.5 ** (1 / steps)
    lstm.bias_ih_l0[n : 2 * n] = math.log(kept / (1 - kept))  # gates: i, f, g, o


def _remembering(bias, gate=1, both=False, clear=2):
    """Return a `remember_` that writes bias(steps) to one gate of one bias; `clear` biases are zeroed."""

    def remember_(lstm, steps):
        n = lstm.hidden_size
        for place, parameter in enumerate((lstm.bias_ih_l0, lstm.bias_hh_l0)):
            if place < clear:
                parameter.zero_()
            if both or place == 0:
                parameter[gate * n : (gate + 1) * n] = bias(steps)

    return remember_


def _right_bias(steps: int) -> float:
    return -math.log(2 ** (1 / steps) - 1)


QUESTIONS = (
    Number(
        statement="A linear recurrence without input, $h_t = W h_{t-1}$, has $W$ from `orthogonal_` with a "
        "`gain` of 0.9. Which share of the norm is left after 50 steps?",
        stars=1,
        minutes=2,
        answer=0.9**50,
        tolerance=0.02,
        mistakes=(
            (0.9**100, "0.9^100 is what is left of the squared norm; the norm is its root."),
            (0.9**25, "The gain is no variance: W multiplies each norm by 0.9, not by √0.9."),
            (0.9**49, "After 50 steps h₀ has met W fifty times: h₁ = W h₀ is one step already."),
            (0.9, "The 0.9 comes in at each of the 50 steps."),
            (1.0, "So it would be with gain 1; this W is 0.9 times an orthogonal matrix."),
        ),
        hints=("What does one step do to the norm of any h?", "It multiplies it by 0.9, exactly."),
        because="Each step multiplies the norm by 0.9, whatever direction h has.",
        solution="W = 0.9 Q with an orthogonal Q: ‖h_t‖ = 0.9 ‖h_(t−1)‖, and 0.9^50 = 0.0052.",
    ),
    Number(
        statement="A Gaussian $W$ of only $n = 3$ units has $\\operatorname{Var}(w) = 2/n$, and "
        "$\\lVert h_0\\rVert = 1$. What is $\\mathbb E\\,\\lVert W^2 h_0\\rVert^2$, the same $W$ twice?",
        stars=2,
        minutes=4,
        answer=4 * (1 + 2 / 9),
        tolerance=0.02,
        mistakes=(
            (4.0, "2 · 2 = 4 is the mean for two different matrices. Which pairings come on top?"),
            (2 * (1 + 2 / 9), "Two steps bring the 2 in twice: each pairing holds four weights."),
            (
                4 * (1 + 2 / 3),
                "An extra pairing leaves Σ h_i² = 1, without a factor 3; the squared variance has 1/3².",
            ),
            (4 + 2 / 9, "The 4 multiplies every pairing, not only the first."),
            (4 * (1 + 1 / 9), "Two pairings exist only because both matrices are the same, not one."),
            (math.sqrt(4 * (1 + 2 / 9)), "That is the root; the mean of the squared norm is asked for."),
            (1 + 2 / 9, "That is for Var(w) = 1/3; here it is 2/3."),
        ),
        hints=(
            "The derivation with variance 1/n gives 1 + 2/n²: what does a factor on all weights change?",
            "W is √2 times a matrix of variance 1/n, and ‖W²h‖² holds it to the power of four.",
        ),
        because="The pairings give 1 + 2/n² = 11/9, and (√2)⁴ = 4 multiplies all of them.",
        solution="W = √2 G with Var = 1/n, so that ‖W²h‖² = 4 ‖G²h‖², of mean 4 (1 + 2/9) = 4.89.",
    ),
    Choice(
        statement="A tanh recurrence runs over 80 blank steps. Before training, the gradient's norm at the "
        "first state is 0.4 of that at the last; the effective dimension of the last states, over images of "
        'ten classes, is 1.1. What do you expect? Answer "it learns", "gradient lost", "digit lost" or '
        '"needs clipping".',
        stars=2,
        minutes=3,
        options={
            "it learns": "A gradient of 0.4 arrives, but at which states? 1.1 dimensions are nearly a line.",
            "gradient "
            "lost": "0.4 over 80 steps is no loss to speak of; a lost gradient is powers of ten smaller.",
            "digit lost": "All images end nearly on one line (1.1 dimensions), where ten classes cannot be "
            "told apart; a gradient that arrives is of little use.",
            "needs clipping": "Clipping shortens long gradients; one that shrinks to 0.4 is not too long.",
        },
        answer="digit lost",
        hints=(
            "Two things can go wrong, one backward, one forward.",
            "Backward 0.4 is left. What does an effective dimension of 1.1 say about the final states?",
        ),
        solution="The gradient survives (0.4), the digit does not: states with 1.1 dimensions lie nearly on "
        "a line. So it was with the lucky ones among the Gaussian matrices.",
    ),
    Experiment(
        statement="A tanh recurrence with one orthogonal $W$, 256 units or more; every unit gets fresh noise "
        "of std 0.8 at each step. Run it until it has settled. Measure the second moment of the state $h_t$ "
        '(`"state"`) and the factor on the *norm* of a gradient per step back (`"gradient"`).',
        stars=2,
        minutes=10,
        answer={"state": _STATE, "gradient": math.sqrt(_SLOPE)},
        tolerance=0.03,
        mistakes=(
            (
                {"state": _SETTLED, "gradient": math.sqrt(_SLOPE)},
                "Your first number is q, of what enters the tanh, noise included; h comes behind it.",
            ),
            (
                {"state": _STATE, "gradient": _SLOPE},
                "Your second number is χ₁, the factor on the squared norm of the gradient.",
            ),
            (
                {"state": _SETTLED, "gradient": _SLOPE},
                "These are q and χ₁: the tanh's input instead of h, and the squared norm.",
            ),
            (
                {
                    "state": float(fixed_point(tanh, 1.0, math.sqrt(_NOISE))) - _NOISE,
                    "gradient": math.sqrt(chi_1(tanh, fixed_point(tanh, 1.0, math.sqrt(_NOISE)))),
                },
                "Your noise has variance 0.8; its std is 0.8.",
            ),
            (
                {"state": _STATE, "gradient": 1 / math.sqrt(_SLOPE)},
                "Your second number is the inverse: by what is the gradient multiplied on its way back?",
            ),
            (
                {"state": math.sqrt(_STATE), "gradient": math.sqrt(_SLOPE)},
                "Your first number is the RMS of h: square it.",
            ),
            (
                {
                    "state": float(output_second_moment(tanh, _NOISE**2)),
                    "gradient": math.sqrt(chi_1(tanh, _NOISE**2)),
                },
                "That is the first step from h = 0, where only noise of 0.8² enters; let it settle.",
            ),
        ),
        hints=(
            "Change `log_gradient` so that it also returns h; ask the theory of the page for σₓ = 0.8.",
            "q* is fixed_point(tanh, 1.0, 0.8), of the pre-activation: how large is h, and what is χ₁ there?",
        ),
        because="E h² = q* − 0.8², and the norm of the gradient shrinks by √χ₁(q*) per step.",
        solution="q* = 1.042 and E h² = q* − 0.64 = 0.402; χ₁(q*) = 0.457, and its root is 0.676.",
    ),
    Function(
        statement="Write `remember_` for an `nn.LSTM` of one layer (called under `no_grad`). It sets the "
        "biases so that, with all weights 0 and no input, *half* of a small $c_0$ is left after `steps` "
        "steps; biases of other gates become 0. torch adds two bias vectors, with gates in the order i, f, "
        "g, o.",
        stars=2,
        minutes=8,
        stub="def remember_(lstm, steps):",
        measure=_shares_left,
        names=(
            "share left of 12 units after 8 steps",
            "its range over units",
            "largest bias of other gates",
            "the same of 30 units after 90 steps",
            "its range",
            "largest other bias",
        ),
        right=remember_,
        tolerance=0.01,  # ln(T/ln 2), good for many steps, is 3 % off after 8
        mistakes=(
            (
                _remembering(_right_bias, both=True),
                "torch adds bias_ih_l0 and bias_hh_l0: written into both, your number counts twice.",
            ),
            (
                _remembering(lambda steps: math.log(steps / math.log(2))),
                "ln(T/ln 2) is near for many steps; after few it leaves more than half.",
            ),
            (
                _remembering(math.log),
                "ln T is the bias that keeps about 1/e after T steps; half was asked for.",
            ),
            (
                _remembering(_right_bias, gate=0),
                "You wrote into another quarter than the forget gate's, which is still at ½.",
            ),
            (
                _remembering(lambda steps: 0.0),
                "The biases of the forget gate add up to 0: it is at ½.",
            ),
            (_remembering(lambda steps: -_right_bias(steps)), "Your sign is wrong: the gate is nearly shut."),
            (
                _remembering(_right_bias, gate=2),
                "You wrote into the third quarter, the candidate g: the cell fills, and forgets at ½.",
            ),
            (
                _remembering(_right_bias, clear=0),
                "All other biases are still random, those of bias_hh_l0's forget gate among them.",
            ),
            (
                _remembering(_right_bias, clear=1),
                "The other bias vector, bias_hh_l0, still holds what it held: set it, too.",
            ),
            (
                _remembering(lambda steps: 0.5 ** (1 / steps)),
                "That is the gate's value f, with f^T = ½; the bias is what the sigmoid turns into f.",
            ),
        ),
        hints=(
            "σ(b)^T is left of the cell: which σ(b) makes it ½, and which b belongs to it?",
            "f = 0.5^(1/T), and b = ln(f/(1 − f)), in one of the two bias vectors.",
        ),
        because="σ(b)^T = ½ on both, for every unit.",
        solution="σ(b)^T = ½ for b = ln(f/(1 − f)) with f = 2^(−1/T), about ln(T/ln 2); the other of the two "
        "forget biases is 0:",
    ),
    Number(
        statement="An orthogonal tanh recurrence is to keep half of its gradient's *norm* over 300 steps. "
        "Every unit gets fresh noise of std $\\sigma_x$ at each step. How large may $\\sigma_x$ be (three "
        "digits), in a wide network that has settled?",
        stars=3,
        minutes=8,
        answer=_QUIET,
        tolerance=0.02,
        mistakes=(
            (
                _settled_with(0.5 ** (1 / 300))[1],
                "With that noise χ₁^300 = ½; but χ₁ is the factor on the squared norm.",
            ),
            (_QUIET_Q, "That is the q* that you want; which noise settles there?"),
            (_QUIET**2, "That is σₓ², the variance of the noise."),
            (
                _settled_with(0.5 ** (4 / 300))[1],
                "With that noise only a quarter of the norm is left: χ₁ acts on its square, once per step.",
            ),
            (
                math.sqrt(2 * _QUIET_Q),
                "2q* is what χ₁ lacks to 1; q itself loses only 2q*² in the tanh, and "
                "the noise refills that.",
            ),
        ),
        hints=(
            "Which χ₁ per step is wanted, which q* gives it, and what noise holds this q*?",
            "χ₁^150 = ½ and χ₁ ≈ 1 − 2q*; at the fixed point σₓ replaces what the tanh takes: q* − E tanh².",
        ),
        because="χ₁^150 = ½ asks for q* = 0.0023, where the tanh takes 2q*² per step, and the noise gives "
        "it.",
        solution="χ₁ = 2^(−1/150) = 1 − 0.0046 ≈ 1 − 2q*, so that q* = 0.0023. Since E tanh(√q Z)² ≈ q − "
        "2q², σₓ² = 2q*² and σₓ = √2 q* = 0.0033.",
    ),
    Number(
        statement="Leaky units, $h_t = 0.8\\,h_{t-1} + 0.2\\,W h_{t-1}$, have one Gaussian $W$ for all "
        "steps, $\\operatorname{Var}(w) = 2.25/n$; no tanh, no input. By which factor does the norm of $h$ "
        "change per step in the long run, for $n \\to \\infty$?",
        stars=3,
        minutes=6,
        answer=0.8 + 0.2 * math.sqrt(2.25),
        tolerance=0.004,  # of the growth per step this is 4 %
        mistakes=(
            (
                math.sqrt(0.8**2 + 0.2**2 * 2.25),
                "√(0.8² + 0.2² · 2.25) would be right for a fresh W at each step; this one returns.",
            ),
            ((0.8 + 0.2 * 1.5) ** 2, "That is the factor on the squared norm."),
            (0.8 + 0.2 * 2.25, "2.25 is n Var(w); the eigenvalues of W fill a disc of its root."),
            (0.8 + 0.2 * 2 * 1.5, "2 · 1.5 is the most that W stretches any vector once, a singular value."),
            (0.8, "W does not average out: it returns, and its eigenvalues lie up to 1.5 from 0."),
            (1.5, "That is the radius of W's own eigenvalues; a step is 0.8 + 0.2 W."),
        ),
        hints=(
            "In the long run one eigenvalue governs. Where do those of 0.8 + 0.2 W lie?",
            "Those of W fill a disc of radius 1.5 around 0; shrink it by 0.2 and move it by 0.8.",
        ),
        because="The eigenvalues of 0.8 + 0.2 W reach to 0.8 + 0.3; fresh matrices would shrink h.",
        solution="Eigenvalues of W fill the disc |λ| ≤ 1.5, those of 0.8 + 0.2 W one of radius 0.3 around "
        "0.8. The outermost is 1.1. Fresh matrices would give √(0.64 + 0.09) = 0.85 per step.",
    ),
    Open(
        statement="A recurrent network has to compare two digits that are 200 steps apart, with other digits "
        "in between. Orthogonal tanh, the identity with ReLU, or an LSTM with a forget bias: which would you "
        "start with, what would you measure before training, and which result would change your mind?",
        stars=3,
        minutes=6,
        hints=(
            "Which law holds here, the one without input or the one with it?",
            "Inputs enter at each step: what keeps them out of what is to be remembered?",
        ),
        because="digits in between are an input, so the tanh loses its gradient exponentially, isometry or "
        "not; ReLUs with the identity keep what they have but add up all that comes. A gate can keep inputs "
        "out: an LSTM with b = ln 200 or more in one of torch's two biases. Before training I would measure "
        "how much of the gradient returns over 200 steps with such inputs, and the effective dimension that "
        "the first digit has left in the last state; if less than a thousandth of the gradient returned, or "
        "one dimension were left, I would change the design, not the rate.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
    Number(
        statement="Which forget bias gives an LSTM's cell the time scale of 20 steps, $\\sigma(b) = 1 - "
        "\\frac1{20}$?",
        stars=1,
        minutes=2,
        answer=math.log(19),
        tolerance=0.005,
        mistakes=(
            (math.log(20), "Near: but σ(ln T) is T/(T + 1); T - 1 makes it exact."),
            (0.95, "That is the gate itself, σ(b)."),
            (-math.log(19), "That is the bias of the input gate, its partner."),
            (20.0, "A bias of 20 never forgets: the time scale is about e^b."),
        ),
        hints=("Solve 1/(1 + e^(-b)) = 19/20.", "e^(-b) = 1/19."),
        because="σ(ln 19) = 19/20.",
        solution="1/(1 + e^(-b)) = 19/20 gives e^b = 19, b = 2.94; the input gate gets -2.94.",
    ),
    Number(
        statement="The units of a layer have time scales $\\tau$ log-uniform between 10 and 1,000, and keep "
        "$e^{-t/\\tau}$ of their state. What share is left after 300 steps, on average over units?",
        stars=2,
        minutes=5,
        answer=torch.exp(-300 / torch.logspace(1, 3, 10_001)).mean().item(),
        tolerance=0.02,
        mistakes=(
            (math.exp(-3), "That is a single scale at the geometric mean, 100."),
            (math.exp(-300 / 505), "That is a single scale at the mean, 505."),
            (
                math.log(1000 / 300) / math.log(100),
                "So many have scales above 300; but they fade, and others last.",
            ),
            (math.exp(-300 * 0.0215), "You averaged the rates 1/τ: of units, the states are to be averaged."),
        ),
        hints=(
            "ln τ is uniform: average e^(-t/τ) over it, by drawing or by an integral.",
            "∫ e^(-t/τ) dτ/τ from 10 to 1,000, divided by ln 100.",
        ),
        because="it is the mean of e^(-300/τ) over ln τ.",
        solution="(E₁(0.3) - E₁(30))/ln 100 = 0.906/4.605 = 0.197, by the exponential integral.",
    ),
)
