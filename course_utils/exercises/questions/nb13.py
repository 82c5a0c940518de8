"""Exercises of notebook 13: what layers add to a stream, and what depth needs then."""

import math
from collections.abc import Callable

import torch
from torch import nn

from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values
from course_utils.exercises.trying import in_place
from course_utils.initializers import zeros_
from course_utils.network_laws import stream_law

_HALF = float(stream_law(0.5, 72, "pre-norm", 256)[0][-1])  # second moment, s = 1/2, 36 blocks
_XAVIER = 1 * (2 / 5) * (1 / 2) * 4 * (2 / 5)  # gain of an MLP branch: W1, ReLU, W2
_FACTOR = 16 ** (1 / 24)  # per branch, from 1 to 16 in 24
_PRE = stream_law(1.0, 60, "pre-norm", 256)[0]
_K, _N = 40, 64  # of the ReZero network


def _slipped(start: float, factor: float, wrong: int = 15) -> float:
    """Return the growth of a pre-norm stream's end if that many of 15 branches bring `factor`, not 1."""
    return (start + 15 - wrong + wrong * factor) / (start + 15)


def _scale(gain: float, moment: float = 2.0) -> float:
    """Return the s with which 48 branches of this gain bring a stream without norm to the moment."""
    return math.sqrt((moment ** (1 / 48) - 1) / gain)


class _Stream(nn.Module):
    """A stream without norm and its MLP branches, as torch builds them."""

    def __init__(self, count: int, n: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(n, 4 * n), nn.ReLU(), nn.Linear(4 * n, n)) for _ in range(count)
        )

    def forward(self, x):
        for branch in self.branches:
            x = x + branch(x)
        return x


@torch.no_grad()
def _branch_gains(mend_: Callable) -> Values:
    """Return √K × RMS of branches, largest over least, how many alike, and what biases add; for two K."""
    found = []
    for count, n in ((3, 128), (7, 96)):
        sizes, alike, biased, grown = [], [], [], []
        for _ in range(4):  # networks
            model = in_place(mend_, _Stream(count, n))
            x = torch.randn(100, n)
            x /= x.square().mean(dim=1, keepdim=True).sqrt()
            outputs = torch.stack([branch(x).flatten() for branch in model.branches])
            sizes.append(outputs.square().mean(dim=1))
            directions = nn.functional.normalize(outputs)
            alike.append((directions @ directions.T).triu(1) > 0.5)
            biased += [(layer.bias != 0).float() for branch in model.branches for layer in branch[::2]]
            grown.append(model(x).square().mean())
        by_place, typical = torch.stack(sizes).mean(dim=0).sqrt(), torch.stack(sizes).mean().sqrt()
        found += [count**0.5 * typical, (by_place.max() > 1.2 * by_place.min()).float()]
        found.append(torch.stack(alike).sum() / (2 * count * (count - 1)))
        found.append(torch.cat(biased).mean())
        grown_too_far = torch.stack(grown).mean() / (1 + 1 / count) ** count
        found.append((grown_too_far.log().abs() > 0.2).float())
    return tuple(value.item() for value in found)


@torch.no_grad()
def mend_(model):
    """Draw all branches again, so that each has the gain 1/K."""
    K = len(model.branches)
    for first, _, last in model.branches:
        first.weight.normal_(0, math.sqrt(1 / first.in_features))
        last.weight.normal_(0, math.sqrt(2 / last.in_features / K))
        first.bias.zero_()
        last.bias.zero_()


def _drawn(
    first_variance: Callable, last_variance: Callable, biases: bool = False, uneven: float = 0.0
) -> Callable:
    """Return a wrong `mend_`: variances that follow from n and K; branches larger and smaller in turn."""

    def wrong(model):
        count, n = len(model.branches), model.branches[0][0].in_features
        for place, (first, _, last) in enumerate(model.branches):
            first.weight.normal_(0, math.sqrt(first_variance(n, count)))
            last.weight.normal_(0, math.sqrt(last_variance(n, count) * (1 + uneven * (-1) ** place)))
            if not biases:
                zeros_(first.bias)
                zeros_(last.bias)

    return wrong


def _copying(model):
    mend_(model)
    for branch in model.branches[1:]:
        branch.load_state_dict(model.branches[0].state_dict())


QUESTIONS = (
    Number(
        statement="A pre-norm transformer of 36 blocks, each with one branch of attention and one MLP, adds "
        "them with $s = \\frac12$. Branches keep the second moment of what they read and share no weights; "
        "the stream starts with RMS 1. What is its RMS at the end?",
        stars=1,
        minutes=3,
        answer=math.sqrt(_HALF),
        mistakes=(
            (_HALF, "That is the second moment; the RMS is its root."),
            (math.sqrt(1 + 36 / 4), "A block has two branches: there are 72."),
            (math.sqrt(1 + 72 / 2), "The factor s is on the branch, so second moments get s² = ¼."),
            (math.sqrt(1 + 72), "That is with s = 1; here s = ½ is on each branch."),
            (1.25**36, "So it would be without a norm, where branches read the stream at its size."),
        ),
        hints=(
            "What does one branch add to the second moment, whatever the stream's size?",
            "Each of the 72 branches adds s² = ¼.",
        ),
        because="m = 1 + 72/4 = 19.",
        solution="A pre-norm branch reads a second moment of 1 and adds s² = ¼: m = 1 + 72/4 = 19, and the "
        "RMS is √19 = 4.36.",
    ),
    Number(
        statement="An MLP branch has $4n$ hidden ReLU units, and Xavier's variance $\\frac2{5n}$ in both "
        "matrices; biases are 0. Which factor $s$ lets a stream with 48 such branches, without any norm, end "
        "at twice its second moment?",
        stars=2,
        minutes=6,
        answer=_scale(_XAVIER),
        mistakes=(
            (_scale(1.0), "That is for branches of gain 1. These keep less of the second moment."),
            (
                _scale(2 * _XAVIER),
                "Too small by √2: the ReLU halves the second moment between the matrices, and there are 48 "
                "branches.",
            ),
            (_scale(_XAVIER) ** 2, "That is s²."),
            (_scale(_XAVIER / 4), "The second matrix sums over 4n units, not n."),
            (_scale(_XAVIER, 4.0), "That doubles the RMS: the second moment becomes 4."),
            (math.sqrt(1 / 48 / _XAVIER), "Without a norm branches multiply: (1 + s²a)^48, not 1 + 48 s²a."),
        ),
        hints=(
            "Which gain a has the branch: first matrix, ReLU, second matrix?",
            "a = 2/5 · ½ · 4 · 2/5 = 0.32, and m grows by 1 + s²a.",
        ),
        because="The gain is 0.32, and (1 + 0.32 s²)^48 = 2.",
        solution="a = n·2/(5n) · ½ · 4n·2/(5n) = 0.32; (1 + 0.32 s²)^48 = 2 gives s = 0.213.",
    ),
    Choice(
        statement="Branches $s\\,W_3\\operatorname{relu}(W_2\\operatorname{relu}(W_1x))$ start with $s = 1$, "
        "$W_3 = 0$ and two random matrices. All four are trained. Which get a gradient that is not zero at "
        "the first step?",
        stars=2,
        minutes=3,
        answer="only W3",
        options={
            "only W3": "∂ℓ/∂W₃ = s g hᵀ with h = relu(W₂ …), and neither is 0; all others get W₃ times …",
            "s and W3": "∂ℓ/∂s = g·W₃h contains W₃ itself, which is 0 at this step.",
            "W1 and W2": "Their gradients come back through W₃, which multiplies them by 0.",
            "all but W3": "The other way round: a zero factor gets a gradient, and takes it from all others.",
        },
        hints=(
            "Write down the gradient of each factor: it is the product of all others on the path.",
            "∂ℓ/∂s = g·W₃h.",
        ),
        solution="A factor's gradient contains all other factors. Those of s, W₂ and W₁ contain W₃ = 0; "
        "that of W₃ is s g hᵀ, with nothing in it that is 0. From the second step on all four move.",
    ),
    Number(
        statement="A wide pre-norm network has 60 branches of gain 1 and $s = 1$; the stream starts with "
        "second moment 1. By which factor is the RMS of the gradient larger at the stream after 11 branches "
        "than after 59?",
        stars=2,
        minutes=4,
        answer=math.sqrt(_PRE[59] / _PRE[11]),
        tolerance=0.004,  # one branch more or less makes 0.8 %
        mistakes=(
            (_PRE[59] / _PRE[11], "That is the factor on the squared gradient."),
            (
                math.sqrt(_PRE[11] / _PRE[59]),
                "The gradient is larger where the stream is smaller, and that is early.",
            ),
            (math.sqrt(_PRE[60] / _PRE[11]), "One too many: behind 59 branches 59 have been added to the 1."),
            (math.sqrt(59 / 11), "After k branches the stream has m = 1 + k, not k."),
            (
                2.0**24,
                "So it would be without a norm: each branch doubles the squared gradient there.",
            ),
            (math.sqrt(_PRE[60]), "That is from the last branch back to the start, not from 59 to 11."),
        ),
        hints=(
            "What stays the same along the stream, in product?",
            "m|g|² is the same everywhere, and m = 1 + k.",
        ),
        because="m|g|² is constant, and m grows from 12 to 60.",
        solution="|g₁₁|²/|g₅₉|² = m₅₉/m₁₁ = 60/12 = 5, so the RMS is larger by √5 = 2.24.",
    ),
    Function(
        statement="`model.branches` holds $K$ branches `nn.Sequential(nn.Linear(n, 4 * n), nn.ReLU(), "
        "nn.Linear(4 * n, n))`, as torch builds them, of a stream without norm. Write `mend_` (called "
        "under `no_grad`): change weights and biases in place so that biases are 0, all branches are "
        "equally large relative to the stream that they read, and the stream's second moment grows by "
        "$(1 + \\frac1K)^K$; any $n$, $K$.",
        stars=2,
        minutes=10,
        stub="def mend_(model):",
        measure=_branch_gains,
        names=(
            "√K × RMS of all branches on inputs of RMS 1, K = 3",
            "whether a branch is 1.2 times as large as another (1: yes)",
            "share of pairs with outputs alike",
            "share of biases that are not 0",
            "whether the stream grows by another factor (1: yes)",
            "K = 7, √K × RMS",
            "unequal",
            "alike",
            "share of biases that are not 0",
            "whether the stream grows by another factor (1: yes)",
        ),
        right=mend_,
        tolerance=0.06,  # five standard errors: a mean over 12 branches, drawn anew, is known to 1 %
        mistakes=(
            (
                _drawn(lambda n, k: 1 / n, lambda n, k: 2 / (4 * n)),
                "Branches have gain 1, but nothing depends on K yet: the stream would grow by 2^K.",
            ),
            (
                _drawn(lambda n, k: 1 / n, lambda n, k: 2 / (4 * n) / k**2),
                "A factor 1/K on the branch is 1/K² on second moments: branches could be larger.",
            ),
            (
                _drawn(lambda n, k: 2 / n, lambda n, k: 2 / (4 * n) / k),
                "You gave both matrices He's 2, but only one ReLU stands between them: the gain is 2/K.",
            ),
            (
                _drawn(lambda n, k: 1 / n, lambda n, k: 2 / n / k),
                "The last matrix has fan-in 4n, and you took its n outputs: the gain is 4/K.",
            ),
            (
                _drawn(lambda n, k: 1 / (3 * n), lambda n, k: 1 / (12 * n) / k),
                "The factor is right for branches of gain 1; those of torch's default have 1/18.",
            ),
            (
                _drawn(lambda n, k: 1 / n, lambda n, k: 0.0),
                "Zero branches keep the stream as it is; here it should grow, by nearly e.",
            ),
            (
                _drawn(lambda n, k: 1 / n, lambda n, k: 2 / (4 * n) / k, biases=True),
                "The weights are right. Biases are not 0, and add to the stream.",
            ),
            (
                _drawn(lambda n, k: 1 / (3 * n), lambda n, k: (18 / k) ** 2 / (12 * n)),
                "You multiplied weights by what their squares need, or both matrices by its root.",
            ),
            (
                _drawn(lambda n, k: 1 / n, lambda n, k: 2 / (4 * n) / k, uneven=0.5),
                "Your branches differ in size: equally large ones are asked for.",
            ),
            (
                _copying,
                "Your branches share their weights: they add up as one vector, and the stream grows far "
                "faster.",
            ),
        ),
        hints=(
            "Which gain must a branch have so that the second moment grows by 1 + 1/K?",
            "1/K: that is n Var(w₁) · ½ · 4n Var(w₂), and biases of 0.",
        ),
        because="Each branch has the gain 1/K, whatever n and K are.",
        solution="n Var(w₁) · ½ · 4n Var(w₂) = 1/K, for instance with 1/n and 2/(4n)/K, and no biases:",
    ),
    Number(
        statement="In a pre-norm network with 24 branches of gain 1 each branch has its own $s_k$, such that "
        "every branch multiplies the stream's second moment by the same factor, from 1 to 16 in all. Which "
        "$s_k$ has the last branch?",
        stars=3,
        minutes=6,
        answer=math.sqrt(16 - 16 / _FACTOR),
        mistakes=(
            (16 - 16 / _FACTOR, "That is s²: what the last branch adds to the second moment."),
            (
                math.sqrt(15 / 24),
                "With equal s all branches add the same, so that the last multiplies least.",
            ),
            (
                math.sqrt(_FACTOR - 1),
                "That is the first branch's, and without norms each one's: here the last must add more.",
            ),
            (
                math.sqrt(16 * (_FACTOR - 1)),
                "One too far: the stream that the last branch multiplies is m₂₃, not m₂₄ = 16.",
            ),
        ),
        hints=(
            "What are m₂₃ and m₂₄? How much must the last branch add?",
            "m_k = 16^(k/24), and the last branch adds s² = m₂₄ − m₂₃.",
        ),
        because="The last branch adds 16 − 16^(23/24), as much in proportion as the first.",
        solution="m_k = 16^(k/24), and s² = 16 − 16^(23/24) = 1.746: s = 1.32, while the first has 0.35.",
    ),
    Experiment(
        statement="ReZero: 40 branches $s_k W_2\\operatorname{relu}(W_1x)$ of width 64, "
        "$\\operatorname{Var}(w) = \\frac1n$ and $\\frac2n$, $s_k = 0$, without norm, on one input of RMS 1. "
        "A small step of SGD on the scalars alone changes the output $u\\cdot x_{40}$. In units of "
        "$-\\eta\\,|u|^2$, over many networks, how large are mean and standard deviation of the change?",
        stars=3,
        minutes=12,
        answer={"mean": float(_K), "std": math.sqrt(_K * (2 + 15 / _N))},
        mistakes=(
            (
                {"mean": _K * _N / 2, "std": math.sqrt(_K * _N * 5 / 4)},
                "That is the step of zero last matrices with s = 1: here only the scalars move.",
            ),
            (
                {"mean": 1.0, "std": math.sqrt((2 + 15 / _N) / _K)},
                "That is for one branch, an average: the changes of all 40 add up.",
            ),
            (
                {"mean": float(_K), "std": _K * (2 + 15 / _N)},
                "The mean is right; the other is a variance.",
            ),
            (
                {"mean": float(_K), "std": math.sqrt(_K)},
                "The mean is right. The square of a normal number of variance 1 has another variance than 1.",
            ),
            (
                {"mean": _K / 2, "std": math.sqrt(_K * (2 + 15 / _N)) / 2},
                "Half of that was expected: is Var(w) = 2/n in the last matrix, for the ReLU?",
            ),
            (
                {"mean": float(_K * _N), "std": math.sqrt(_K * (2 + 15 / _N)) * _N},
                "Divide by |u|², the sum of its squares, not by their mean.",
            ),
        ),
        tolerance=0.06,  # 1,000 networks: 0.8 % for the mean, 3 % for the standard deviation
        hints=(
            "The gradient of s_k is u·f_k, with f_k what the branch would add. What does each then add?",
            "The change is −η Σ (u·f_k)²; u·f_k is nearly normal, of variance |u|².",
        ),
        because="The mean is K at any width: zero last matrices move the output n/2 times as far, and with "
        "far less scatter.",
        solution="s_k becomes −η u·f_k, so the output changes by −η Σ (u·f_k)². Each (u·f_k)²/|u|² has mean "
        "1 and variance 2 + 15/n: together 40, and √(40 · 2.23) = 9.5.",
    ),
    Open(
        statement="A pre-norm network has 200 branches, $s = 1$. Somebody removes the last ten branches "
        "after training, and hardly anything changes. Does the law of the stream at the start make this "
        "plausible, and what would you change before training? Answer in a few sentences.",
        stars=3,
        minutes=6,
        hints=(
            "Which share of the stream's second moment do ten of 200 branches bring at the start?",
            "Compare it with the gradient of their weights.",
        ),
        because="branch k adds 1 to a stream of second moment k, so that the last ten bring 10/201 = 5 % of "
        "it, and their weights get gradients of 1.5/(1 + k) in square, the smallest of all. Larger s_k for "
        "later branches, or post-norm with small s, give all branches gradients of one size, later ones a "
        "larger share of the stream; s = 1/√200 makes gradients alike within a factor of two, but the last "
        "ten then bring only 2.5 %. And all this is step 0: training may make late branches agree.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
    Number(
        statement="A pre-norm stream starts with second moment 4 and has 15 branches of gain 1, $s = 1$. By "
        "a slip all branches are drawn 10 % too large (their outputs, not their squares). By which factor "
        "is the stream's second moment at the end larger than intended?",
        stars=2,
        minutes=4,
        answer=_slipped(4.0, 1.1**2),
        mistakes=(
            (1.1**2, "So it would be if the start were 10 % too large, too: the embedding's 4 are not."),
            (_slipped(1.0, 1.1**2), "The stream starts with 4, not with 1."),
            (
                math.sqrt(_slipped(4.0, 1.1**2)),
                "That is the factor on the RMS, or the slip without its square, 1.1 for 1.21.",
            ),
            (
                ((1 + 1.1**2) / 2) ** 15,
                "So it would be without a norm, where branches multiply: here each adds.",
            ),
            (_slipped(4.0, 1.1**2, wrong=1), "That is the slip of one branch: all 15 made it."),
        ),
        tolerance=0.004,
        hints=(
            "What was intended: how much second moment from the start, how much from the branches?",
            "Intended are 4 + 15. Each branch now adds 1.21.",
        ),
        because="Branches bring 15 of 19 parts, and each becomes 1.21 times as large.",
        solution="(4 + 15 · 1.21)/(4 + 15) = 22.15/19 = 1.166: the elasticities of all branches, 2/19 each, "
        "sum to 30/19, so that a small slip of ε changes m by 1.58 ε, 16 % for 10 %.",
    ),
)
