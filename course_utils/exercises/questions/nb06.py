"""Exercises of notebook 06: who moves, what unties units, the first loss, and biases chosen on purpose."""

import math

import numpy as np
import torch
from torch import nn

from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values
from course_utils.exercises.running import Unreadable
from course_utils.exercises.trying import in_place
from course_utils.initializers import output_prior_bias_, zeros_
from course_utils.network_laws import expected_first_loss

_SHARES = np.array([0.5, 0.3, 0.2])
_ENTROPY = float(-_SHARES @ np.log(_SHARES))
_VARIANCE, _CLASSES = 6.0, 50
_BALANCED = np.full(_CLASSES, 1 / _CLASSES)
_LOSS = float(expected_first_loss(_BALANCED, np.zeros((1, _CLASSES)), math.sqrt(_VARIANCE))[0])
_BLOCK = 1 + 1 / 4
_T = torch.linspace(-9, 9, 2001, dtype=torch.float64)
_LARGEST = 9 - float(torch.trapezoid(torch.special.ndtr(_T) ** _CLASSES, _T))  # E max of 50 N(0, 1)


def _first_losses(start) -> Values:
    """Return by how many per cent the first loss exceeds H(p), for three sets of counts."""
    found = []
    for counts in ([9995, 5], [60, 25, 10, 5], [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]):
        p = np.array(counts) / sum(counts)
        last = in_place(start, nn.Linear(30, len(counts)), list(counts)).double()
        logits = last(1e4 * torch.randn(sum(counts), 30).relu().double())
        guess = logits.softmax(dim=1)
        if (guess - guess[0]).abs().max() > 1e-5:
            raise Unreadable("some weights are not 0: small or not, with large signals they move the loss")
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        loss = nn.functional.cross_entropy(logits, labels).item()
        found.append(100 * (loss / float(-p @ np.log(p)) - 1))
    return tuple(found)


def start(last, counts):
    """Make the first loss of a classifier with the output layer `last` that of knowing the counts."""
    zeros_(last.weight)
    output_prior_bias_(last.bias, counts)


def _biased(bias):
    """Return a start whose output bias is a function of the counts."""

    def wrong(last, counts):
        zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(bias(torch.tensor(counts, dtype=torch.float64)))

    return wrong


def _without_bias(last, _):
    zeros_(last.weight)


def _memories(remember) -> Values:
    """Return, for two LSTMs, the least and the most share that a unit keeps, and how many other biases."""
    found = []
    for units, steps, share in ((6, 20, 0.6), (9, 5, 0.1)):
        lstm = nn.LSTM(3, units)
        weights = [p.detach().double() for name, p in lstm.named_parameters() if "weight" in name]
        lstm = in_place(remember, lstm, steps, share).double()
        if not all(map(torch.equal, weights, (lstm.weight_ih_l0, lstm.weight_hh_l0))):
            raise Unreadable("weights have changed: set the biases alone")
        with torch.no_grad():
            zeros_(lstm.weight_ih_l0), zeros_(lstm.weight_hh_l0)
            c = torch.stack([torch.ones(units), torch.zeros(units)]).double()[None]  # a batch of two
            x = torch.zeros(steps, 2, 3, dtype=torch.float64)
            full, empty = lstm(x, (torch.zeros_like(c), c))[1][1][0]
            biases = torch.stack([lstm.bias_ih_l0, lstm.bias_hh_l0]).view(2, 4, units)
        kept, others = full - empty, biases[:, [0, 2, 3]].count_nonzero()
        found += [kept.min().item(), kept.max().item(), others.item()]
    return tuple(found)


def remember(lstm, steps, share):
    """Set the biases so that this share of a memory is left after so many steps, for small weights."""
    gate, units = share ** (1 / steps), lstm.hidden_size
    zeros_(lstm.bias_ih_l0)
    zeros_(lstm.bias_hh_l0)
    with torch.no_grad():
        lstm.bias_ih_l0[units : 2 * units] = math.log(gate / (1 - gate))


def _forgets(bias, quarters=(1,), second=0.0):
    """Return a remember that puts a bias into some quarters, and `second` times as much into bias_hh."""

    def wrong(lstm, steps, share):
        gate, units = share ** (1 / steps), lstm.hidden_size
        with torch.no_grad():
            for vector, times in ((lstm.bias_ih_l0, 1.0), (lstm.bias_hh_l0, second)):
                if times is not None:
                    vector.zero_()
                    for k in quarters:
                        vector[k * units : (k + 1) * units] = times * bias(gate, steps)

    return wrong


def _logit(gate, _):
    return math.log(gate / (1 - gate))


def _others_left(second):
    """Return a remember that sets the forget quarters alone, that of bias_hh to `second`."""

    def wrong(lstm, steps, share):
        forget = slice(lstm.hidden_size, 2 * lstm.hidden_size)
        with torch.no_grad():
            lstm.bias_ih_l0[forget] = _logit(share ** (1 / steps), steps)
            if second is not None:
                lstm.bias_hh_l0[forget] = second

    return wrong


QUESTIONS = (
    Number(
        statement="A tanh network starts with all weights and biases at zero, and gradient descent on all "
        "images trains it to the end. There are three classes, with shares 0.5, 0.3 and 0.2. At which loss "
        "(natural logarithms) does it end?",
        stars=1,
        minutes=3,
        answer=_ENTROPY,
        tolerance=0.005,
        mistakes=(
            (math.log(3), "That is where it starts: a guess that gives each class the same probability."),
            (_ENTROPY / math.log(2), "That is in bits: take natural logarithms."),
            (-math.log(0.5), "That is the loss of the images of the first class only."),
            (0.0, "It would have to look at the images for that, and its weights stay 0."),
        ),
        hints=(
            "Which parameters of such a network move, and what can they learn?",
            "Only the output bias moves: softmax(b) becomes (0.5, 0.3, 0.2). What is the mean of −ln p then?",
        ),
        because="Only the output bias moves, and the best constant guess costs the entropy of the shares.",
        solution="H(p) = −0.5 ln 0.5 − 0.3 ln 0.3 − 0.2 ln 0.2 = 1.0297.",
    ),
    Number(
        statement="A sigmoid network has six weight matrices, and all its weights and biases are zero. "
        "Classes are not exactly balanced. Plain gradient descent takes step 0, step 1, ... At which step "
        "does $W_1$ move for the first time?",
        stars=1,
        minutes=3,
        answer=5.0,
        mistakes=(
            (6.0, "The first step is step 0, in which the uppermost of the six matrices moves."),
            (0.0, "Step 0 moves W_6 only: no error comes down through a W_6 that is 0."),
            (4.0, "Count again: W_6 moves at step 0, W_5 at step 1."),
            (2.0, "So it is with three matrices; here there are six."),
        ),
        hints=(
            "What stops the error on its way down, and when does that end?",
            "W_6 moves at step 0, after which an error arrives below it. Go on down.",
        ),
        because="One layer wakes up per step, from the top: W_6 at step 0, W_1 five steps later.",
        solution="W_6 sees the signal 1/2 and moves at step 0; W_l can move only after W_{l+1} has. So W_1 "
        "moves at step 5.",
    ),
    Number(
        statement="A fully connected tanh network has 12 weight matrices, all constant, and zero biases. You "
        "may make some of the matrices random. How many does it take at least, so that no hidden layer has "
        "tied units?",
        stars=2,
        minutes=5,
        answer=float(math.ceil(11 / 2)),
        mistakes=(
            (12.0, "A random matrix does more than the tie of one layer needs; not all 12 are necessary."),
            (11.0, "That is one for each of the 11 hidden layers; one matrix touches two of them."),
            (5.0, "Five matrices touch ten hidden layers at most, and there are 11."),
            (
                1.0,
                "A tie is a matter of a layer's own incoming and outgoing weights; one matrix has two ends.",
            ),
        ),
        hints=(
            "How many hidden layers are there, and which of them does a random W_k free?",
            "W_k holds the incoming weights of layer k and the outgoing ones of layer k − 1.",
        ),
        because="Each matrix frees the layers at its two ends, and 11 layers need ⌈11/2⌉ of them.",
        solution="W_k frees the layers k − 1 and k. Eleven hidden layers need at least 11/2 matrices, so 6, "
        "and W_2, W_4, ..., W_12 do it.",
    ),
    Choice(
        statement="GELU is $z\\,\\Phi(z)$: it is 0 at 0, with slope $\\frac12$ there. Such a network has "
        "three weight matrices and zero biases; all are random, but for those that start at zero. All three "
        "should "
        'get moving. Which may be zero: "any one", "only W3", "any two", or "none"?',
        stars=2,
        minutes=4,
        options={
            "any one": "The zero matrix gets a signal from below and, as GELU's slope at 0 is not 0, an "
            "error from above: it moves at step 0, the others at step 1.",
            "only W3": "That is ReLU's answer, because torch takes its slope at 0 to be 0. What does GELU do "
            "to an error there?",
            "any two": "Of two zero matrices each waits for the other: one for a signal, one for an error.",
            "none": "A matrix's own gradient does not contain that matrix: its zeros block the others, not "
            "it.",
        },
        answer="any one",
        hints=(
            "The gradient of W_l is the error from above times the signal from below.",
            "Put W_2 = 0: is h_1 zero? Is the error at z_2 zero, where z_2 = 0?",
        ),
        solution="With one zero matrix all earlier ones carry the signal and all later ones the error, "
        "through slopes of 1/2 at z = 0. So that matrix moves at step 0 and frees the others.",
    ),
    Experiment(
        statement="Residual blocks $h + W_2\\operatorname{relu}(W_1h)$ of width 64, Gaussian weights of "
        "variance $2/n$ in $W_1$, $1/(4n)$ in $W_2$, inputs $h_0$ from $N(0, 1)$. Measure after ten blocks, "
        "averaged over 5,000 networks or more: `growth` = $|h_{10}|^2/|h_0|^2$, and `along` = $h_{10}\\cdot "
        "h_0/|h_0|^2$.",
        stars=2,
        minutes=8,
        answer={"growth": _BLOCK**10, "along": 1.0},
        tolerance=0.03,  # 5,000 networks: about 0.6 % each; two of the mistakes differ by 6 %
        mistakes=(
            (
                {"growth": _BLOCK**5, "along": 1.0},
                "That growth is one of the RMS; squares were asked for.",
            ),
            ({"growth": 2.0**10, "along": 1.0}, "That is the growth for Var(W_2) = 1/n; here it is 1/(4n)."),
            (
                {"growth": 1 + 10 / 4, "along": 1.0},
                "That adds a quarter of |h_0|² ten times; a branch adds a quarter of what has arrived.",
            ),
            (
                {"growth": _BLOCK**10, "along": _BLOCK**-5},
                "That is the cosine of h_10 and h_0: `along` divides by |h_0|² alone.",
            ),
            (
                {"growth": (1 + 1 / 8) ** 10, "along": 1.0},
                "That growth is one with Var(W_1) = 1/n; here it is 2/n.",
            ),
            ({"growth": 1.0, "along": _BLOCK**10}, "These two are in each other's place."),
        ),
        hints=(
            "Draw fresh W_1 and W_2 for each block; the ten blocks of notebook 06 need two changes.",
            "What a branch adds is uncorrelated with h, and a quarter of it in mean square.",
        ),
        because="A block multiplies the mean square by 1 + 1/4, and on average adds nothing along h_0.",
        solution="W_2 is fresh and has mean 0: squares add, m' = m + m/4, so that growth is 1.25^10 = 9.31, "
        "and E h_10·h_0 = |h_0|².",
    ),
    Number(
        statement=f"A classifier with {_CLASSES} balanced classes prints a first loss of {_LOSS:.2f}, "
        "averaged over many random last layers. If its logits are independent normal numbers of mean 0, what "
        "is their variance?",
        stars=2,
        minutes=5,
        answer=_VARIANCE,
        tolerance=0.03,
        mistakes=(
            (
                (_LOSS - math.log(_CLASSES)) / (1 - 1 / _CLASSES),
                "v/2, not v, is what a small v adds to ln K; and v is not small here.",
            ),
            (math.sqrt(_VARIANCE), "That is the standard deviation."),
            (
                2 * (_LOSS - math.log(_CLASSES)) / (1 - 1 / _CLASSES),
                "That is the law for small v, ln K + (v/2)(1 − 1/K), used where v is not small.",
            ),
            (
                (_LOSS / _LARGEST) ** 2,
                "That is the law for large v, √v E max Z, used where the ln K is still half of the loss.",
            ),
            (2.0, "2 is the variance behind a He last layer; this one is not He's."),
        ),
        hints=(
            "The notebook's initial_loss(v, classes=50) gives the loss of a variance; turn it round.",
            "Try v = 1, 2, 4, 8 and close in on the loss.",
        ),
        because="initial_loss(v, classes=50) is the printed loss at that v.",
        solution=f"E max(z + G) − γ of 50 logits is {_LOSS:.2f} at v = 6; the small-v law would give "
        f"{math.log(_CLASSES) + _VARIANCE / 2 * (1 - 1 / _CLASSES):.2f} there.",
    ),
    Number(
        statement="A ReLU classifier has six weight matrices with weights $N(0, s^2)$, $s$ tiny, and zero "
        "biases. You halve $s$ in all of them. By which factor is the gradient of $b_2$, the second layer's "
        "bias, multiplied?",
        stars=2,
        minutes=4,
        answer=0.5**4,
        mistakes=(
            (0.5**5, "That is the factor for a weight: its gradient carries the signal from below, too."),
            (0.5**6, "That is the factor on the logits."),
            (0.5**3, "Count again which matrices lie above b_2."),
            (0.5**2, "You counted the matrices below b_2; which does an error pass on its way to it?"),
            (2.0**4, "Smaller weights make smaller gradients, not larger ones."),
        ),
        hints=(
            "The gradient of a bias is δ itself. Which matrices has δ_2 passed?",
            "The error at the logits hardly changes; it passes W_6, W_5, W_4 and W_3.",
        ),
        because="δ_2 has passed W_6 to W_3, and nothing else in it depends on s.",
        solution="The error at the logits is softmax(0) − y for every tiny s. Four later matrices, each half "
        "as large: 2^(−4) = 1/16.",
    ),
    Function(
        statement="Write `start(last, counts)`: set the `nn.Linear` output layer `last` in place, so that "
        "the first loss is exactly that of a guess that knows how often each class occurs, whatever the "
        "layers below do. `counts` are the images of each class.",
        stars=2,
        minutes=6,
        stub="def start(last, counts):",
        measure=_first_losses,
        names=(
            "per cent of first loss above H(p), with 9,995 and 5 images",
            "with 60, 25, 10 and 5",
            "with 10, 20, ..., 100",
        ),
        right=start,
        tolerance=0.0001,  # nothing is random, and counts + 1 cost only 0.1 %
        mistakes=(
            (
                _biased(torch.zeros_like),
                "That starts at ln K: with 9,995 and 5 images, a guess of one half for each class.",
            ),
            (_without_bias, "The weights are 0, but the bias still has its random start."),
            (
                _biased(lambda counts: counts / counts.sum()),
                "Softmax takes exponentials: a bias of 0.9995 and 0.0005 does not give these shares.",
            ),
            (_biased(lambda counts: counts), "That is the count, not its logarithm."),
            (
                _biased(torch.log10),
                "Those are decimal logarithms; softmax takes e to the logits: natural logarithms.",
            ),
            (
                _biased(torch.log2),
                "Those are logarithms to base 2; softmax takes e to the logits: natural logarithms.",
            ),
            (_biased(lambda counts: -counts.log()), "That makes the rare class the likely one."),
            (
                _biased(lambda counts: counts.sort().values.log()),
                "You sorted the counts: the first class is not the rarest.",
            ),
            (
                _biased(lambda counts: (counts / (counts.sum() - counts)).log()),
                "Log-odds are for a single sigmoid output; a softmax wants something simpler.",
            ),
            (
                _biased(lambda counts: (counts + 1).log()),
                "You smoothed the counts: exactly the shares were asked for.",
            ),
        ),
        hints=(
            "Two things make up the logits. Which of them should the first loss not see?",
            "Weights 0, so that the logits are the bias; now softmax(bias) should be counts/sum.",
        ),
        because="With zero weights the logits are ln p for every image, and the loss is H(p).",
        solution="softmax(ln p) = p, and with W = 0 no image changes it:",
    ),
    Function(
        statement="Write `remember(lstm, steps, share)`: set the biases of an `nn.LSTM` of one layer in "
        "place, so that, for weights near zero, after `steps` steps this `share` of each unit's memory is "
        "left; biases that this does not need are 0.",
        stars=3,
        minutes=10,
        stub="def remember(lstm, steps, share):",
        measure=_memories,
        names=(
            "with 6 units, 20 steps, share 0.6: the least that a unit keeps",
            "the most",
            "other biases that are not 0",
            "with 9 units, 5 steps, share 0.1: the least",
            "the most",
            "other biases that are not 0 there",
        ),
        right=remember,
        tolerance=0.02,
        mistakes=(
            (
                _forgets(_logit, second=1.0),
                "bias_ih and bias_hh are added: the gate sees twice what you meant.",
            ),
            (
                _forgets(_logit, second=None),
                "bias_hh still holds what torch drew at random, and it is added to yours.",
            ),
            (
                _forgets(_logit, quarters=(0,)),
                "The forget gate still has bias 0: the quarters are input, forget, cell, output.",
            ),
            (
                _others_left(0.0),
                "The share is right, but the other biases still have their random start.",
            ),
            (
                _others_left(None),
                "All other biases still have their random start, and bias_hh is added to yours.",
            ),
            (
                _forgets(lambda gate, steps: _logit(gate**steps, steps)),
                "`share` is what is left after all steps: one step keeps share^(1/steps).",
            ),
            (
                _forgets(_logit, quarters=(0, 1, 2, 3)),
                "The share is right, but you opened the other gates as well, and empty memories fill up.",
            ),
            (
                _forgets(lambda gate, steps: gate),
                "That is what the gate should let through in a step; the bias goes through a sigmoid first.",
            ),
            (
                _forgets(lambda gate, steps: math.log(steps)),
                "ln T keeps about 1/e after T steps, whatever share is wanted.",
            ),
        ),
        hints=(
            "After T steps σ(b)^T is left. Which b gives the share, and where in the two vectors does it go?",
            "f = share^(1/steps), b = ln(f/(1 − f)), into the second quarter of one of the two bias vectors.",
        ),
        because="σ(b)^steps is the share, in the forget quarter, and all else is 0.",
        solution="f = σ(b) has to be share^(1/steps), so b = ln(f/(1 − f)). Input, forget, cell, output: the "
        "second quarter; bias_hh is added, so it is 0:",
    ),
    Open(
        statement="A zero last layer gives a perfect first loss and a slow first step; a He last layer the "
        "reverse. Which scale of the last layer has the lowest loss after 20 steps, and which after 300? "
        "What would you need to know to predict them? Try it on the digits, and answer in a sentence or two.",
        stars=3,
        minutes=15,
        hints=(
            "Multiply the last layer of the notebook's He networks by 0, 0.1, 1, 3 and 10, and train them.",
            "What does a larger last layer do to the hidden layers' gradients, and to the first loss?",
        ),
        because="ten networks 64–64–64–10 on the digits, SGD at rate 0.05: after 20 steps the lowest loss "
        "was at about 6 times He (0.48, against 1.16 for He and 1.70 for zeros), after 300 steps at 10 to 12 "
        "times; at 16 it is worse again. They are not the same. A louder last layer sends larger errors "
        "down, as a larger learning rate of the hidden layers would, and pays with a first loss of 12 to 23. "
        "To predict the best one needs the learning rate and how far a step may go before it overshoots; all "
        "of this is training loss, not test loss.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
