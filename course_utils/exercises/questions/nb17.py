"""Exercises of notebook 17: sparse and pruned weights, what makes a ticket win, heads on trained features."""

import math
from statistics import NormalDist

import numpy as np
import torch

from course_utils.activations import Activation, leaky_relu, linear, relu
from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values
from course_utils.exercises.running import Unreadable
from course_utils.network_laws import expected_first_loss, pruned_normal
from course_utils.quadrature import gaussian_expectation

_SIDE, _OUT = 400, 2  # of a matrix in 17.3, and the links that each input keeps
_SHARE = _OUT / _SIDE
_SILENT = (1 - _SHARE) ** _SIDE
_LINK_VARIANCE = _OUT * (1 - _SHARE)
_KEPT = pruned_normal("the smallest", 0.3)[1]
_CUT = NormalDist().inv_cdf(0.7)  # with 30 % above it, on one side
_ONE_SIDED = 0.3 + 2 * _CUT * NormalDist().pdf(_CUT)
_LEAK, _LINKS = 0.5, 12


def _moment_factor(phi: Activation) -> float:
    """Return c, the kurtosis of phi(z) for normal z of mean 0."""
    second, fourth = (float(gaussian_expectation(lambda z, p=p: phi(z) ** p)) for p in (2, 4))
    return fourth / second**2


def _noise(c: float) -> float:
    """Return n Var(m'/m) of a settled layer of 12 links."""
    return c * (_LINKS - 1) / (_LINKS - c) - 1


_C = _moment_factor(leaky_relu(_LEAK))


def _first_loss(std: float) -> float:
    """Return the expected loss of five logits N(0, std²)."""
    return expected_first_loss(np.full(5, 0.2), np.zeros((1, 5)), std).item()


def _pruned(prune_) -> Values:
    """Return the share that is kept, the sum of squares, and how large the kept weights were, twice.

    Raises: Unreadable unless the kept weights are the old ones times one factor.
    """
    generator, found = torch.Generator().manual_seed(17), []
    normal = torch.randn(300, 200, generator=generator)
    uniform = torch.rand(64, 32, 3, 3, generator=generator) - 0.3  # its mean is not 0
    for before, kept in ((normal, 0.2), (uniform, 0.5)):
        weight = before.clone()
        with torch.no_grad():
            prune_(weight, kept)
        if weight.equal(before):
            raise Unreadable("the weight is what it was: change it in place")
        left = weight != 0
        factors = weight[left] / before[left]
        if not left.any() or factors.max() - factors.min() > 1e-4 * factors.max().abs():
            raise Unreadable("the kept weights are not the old ones times one factor")
        removed = before[~left].abs().max() if (~left).any() else before.abs().min()
        found += [
            left.double().mean().item() / kept,
            (weight.square().sum() / before.square().sum()).item(),
            (before[left].abs().mean() / before.abs().mean()).item(),
            round((before[left].abs().min() / removed).item(), 2),
        ]
    return tuple(found)


def prune_(weight, kept):
    """Keep the largest share of the weights, and the sum of their squares."""
    before = weight.square().sum()
    cut = weight.abs().flatten().quantile(1 - kept)
    weight[weight.abs() < cut] = 0
    weight *= (before / weight.square().sum()).sqrt()


def _pruning(factor=lambda before, after, kept: math.sqrt(before / after), order=torch.abs):
    """Return a `prune_` that keeps what is last in an order and multiplies by factor(before, after, kept)."""

    def prune_(weight, kept):
        before, keys = weight.square().sum().item(), order(weight)
        weight[keys < keys.flatten().quantile(1 - kept)] = 0
        weight *= factor(before, weight.square().sum().item(), kept)

    return prune_


def _ranks(weight, dim):
    """Return for each weight how many of its row or column are smaller."""
    return weight.abs().flatten(1).argsort(dim).argsort(dim).double().view_as(weight)


QUESTIONS = (
    Number(
        statement="In a ReLU layer with 400 inputs each unit is linked to only 20 of them; all other weights "
        "are 0, and so are the biases. Which standard deviation must the 20 Gaussian weights have to keep "
        "the second moment, on average?",
        stars=1,
        minutes=2,
        answer=math.sqrt(2 / 20),
        mistakes=(
            (math.sqrt(2 / 400), "A unit sums 20 terms, not 400: 380 of them are 0."),
            (math.sqrt(1 / 20), "That keeps a linear layer; the ReLU throws half of the second moment away."),
            (2 / 20, "That is the variance."),
            (math.sqrt(1 / 400), "That is for 400 inputs and a linear layer."),
            (math.sqrt(2 / 380), "380 are the links that are missing."),
        ),
        hints=("What takes the place of the fan-in?", "The number of links: v = 2/k, with k = 20."),
        because="20 links take the place of the fan-in: the variance is 2/20.",
        solution="E z² = k v m, and the ReLU halves it: v = 2/k = 0.1, std = 0.316.",
    ),
    Choice(
        statement="Re-drawn networks learn more slowly than tickets of the same mask. Somebody says: only "
        "because few links leave a weak signal. Which control tests just that, and leaves the rest of a "
        're-drawn network as it is? Answer "random mask", "variance 2/links", "original signs" or "more '
        'steps".',
        stars=1,
        minutes=3,
        options={
            "variance 2/links": "Same mask, same law, new values; only the scale is what the links need.",
            "random "
            "mask": "That changes the places of the weights, and leaves their scale as weak as it was.",
            "original signs": "That gives back what the ticket's start knew, a second difference at once.",
            "more steps": "That shows whether re-drawn networks catch up, not why they are slow.",
        },
        answer="variance 2/links",
        hints=(
            "A control changes one thing: the one that is under suspicion.",
            "Few links of variance 2/n make E z² small. Which law of weights mends that and nothing else?",
        ),
        solution="The suspicion is scale, so repair the scale: variance 2/links for each unit, same mask. "
        "(It took nothing of the tickets' lead away.)",
    ),
    Experiment(
        statement="`sparse_(W, 0.995)` of the course fills a $400 \\times 400$ weight `W` (units are rows). "
        'Over a hundred such matrices or more: which share of the units has no link at all (`"silent"`), and '
        'what is the standard deviation of the number of links over units (`"std"`)?',
        stars=2,
        minutes=6,
        answer={"silent": _SILENT, "std": math.sqrt(_LINK_VARIANCE)},
        tolerance=0.05,  # 40,000 units, of which 13 % are silent: a standard error of 1.3 %
        mistakes=(
            (
                {"silent": 0.0, "std": 0.0},
                "You counted by columns: each input keeps exactly 2; units are the rows.",
            ),
            ({"silent": _SILENT, "std": _LINK_VARIANCE}, "Your second number is the variance of the links."),
            (
                {"silent": 1 - _SILENT, "std": math.sqrt(_LINK_VARIANCE)},
                "Your first number is the share of units with a link.",
            ),
            (
                {"silent": 100 * _SILENT, "std": math.sqrt(_LINK_VARIANCE)},
                "Your first number is in per cent; a share was asked for.",
            ),
            (
                {"silent": 1 - _SHARE, "std": math.sqrt(_LINK_VARIANCE)},
                "0.995 is the share of weights that are 0; a unit is silent if all its 400 weights are.",
            ),
            (
                {
                    "silent": _SILENT * (1 + _SIDE * _SHARE / (1 - _SHARE)),
                    "std": math.sqrt(_LINK_VARIANCE),
                },
                "You counted units with one link, too.",
            ),
        ),
        hints=(
            "(W != 0).sum(dim=1) counts the links of each unit.",
            "Each of 400 columns gives a unit its link with probability 2/400: the links are binomial.",
        ),
        because="Links are Binomial(400, 1/200): (1 − 1/200)^400 of the units get none.",
        solution="Each column keeps 2 of 400 entries, so a unit gets each link with probability 1/200: none "
        "with 0.995^400 = 0.135; the variance is 400 · 0.005 · 0.995 = 1.99, its root 1.41.",
    ),
    Number(
        statement="A He-initialized ReLU network is pruned before training: of each matrix the largest 30 % "
        "of the Gaussian weights stay, as they are. Which share of the RMS is left after eight wide layers?",
        stars=2,
        minutes=5,
        answer=_KEPT**4,
        mistakes=(
            (_KEPT**8, "That is what is left of the second moment; the RMS is its root."),
            (_KEPT, "That is s, what one layer leaves of a second moment: eight layers, and the RMS."),
            (math.sqrt(_KEPT), "That is for one layer; there are eight."),
            (0.3**4, "0.3 would be left of E w² if any 30 % stayed; the largest hold more."),
            (0.3**8, "That is the second moment for 30 % chosen at random."),
            (_ONE_SIDED**4, "Your cut has 30 % above it; both tails together are to have 30 %."),
            ((_KEPT / 2) ** 4, "He's 2 makes up for the ReLU already: only the pruning is left to count."),
            (1 - 0.7**4, "Weights are removed in all eight layers, and what counts is their squares."),
        ),
        hints=(
            "Which share s of E w² do the largest 30 % hold?",
            "s = 0.3 + 2tΦ'(t), Φ(t) = 0.85; then s^(8/2).",
        ),
        because="The largest 30 % hold 78 % of E w², and eight layers take the root of its eighth power.",
        solution="t = Φ⁻¹(0.85) = 1.036 and s = 0.3 + 2tΦ'(t) = 0.783: m falls to s⁸, the RMS to s⁴ = 0.376.",
    ),
    Number(
        statement="Trained features, 64 for each image, have an RMS of 2 on every image. A new head for "
        "*five* classes gets Gaussian weights of std $1/\\sqrt{64}$, biases 0. What is the expected first "
        "cross-entropy loss? (`network_laws.expected_first_loss` or a simulation.)",
        stars=2,
        minutes=5,
        answer=_first_loss(2.0),
        tolerance=0.01,
        mistakes=(
            (
                math.log(5),
                "ln 5 is the loss of equal guesses; this head makes logits that are far from equal.",
            ),
            (_first_loss(1.0), "So a head starts on features of RMS 1; these are twice as large."),
            (
                _first_loss(math.sqrt(2)),
                "The logits' standard deviation is the RMS 2, not its root; and if you took ln 10: that is "
                "for ten equal guesses.",
            ),
            (_first_loss(4.0), "The logits' variance is 4, and their standard deviation 2."),
            (
                math.log(5) + 2 * 0.8,
                "ln 5 + (v/2)(4/5) is the first order for small v; here v = 4 is large.",
            ),
            (
                expected_first_loss(np.full(10, 0.1), np.zeros((1, 10)), 2.0).item(),
                "That is for ten classes; this head has five.",
            ),
        ),
        hints=(
            "Which variance have the logits of an image?",
            "v = ‖h‖²/64 = 2², so five independent logits N(0, 4).",
        ),
        because="Each image gets five logits N(0, 4), confident and wrong more often than right.",
        solution="v = 64 · 2² · 1/64 = 4, and the expected loss of five logits N(0, 4) is 2.81, against "
        "ln 5 = 1.61 for a head of zeros.",
    ),
    Function(
        statement="Write `prune_(weight, kept)` (called under `no_grad`): in place, set all but the largest "
        "share `kept` of the weights to 0, and multiply the others by one factor so that $\\sum w^2$ stays "
        "what it was. It is tried on a matrix of Gaussian weights and a kernel of uniform ones.",
        stars=2,
        minutes=8,
        stub="def prune_(weight, kept):",
        measure=_pruned,
        names=(
            "Gaussian, 20 %: share kept over 0.2",
            "sum of squares, after/before",
            "mean |w| before, of the kept over all",
            "smallest kept over largest removed",
            "uniform, 50 %: share kept over 0.5",
            "sum of squares, after/before",
            "mean |w| before, of the kept over all",
            "smallest kept over largest removed",
        ),
        right=prune_,
        tolerance=0.005,  # nothing is random once the weights are there
        mistakes=(
            (
                _pruning(lambda before, after, kept: 1.0),
                "Σw² falls with each weight removed: rescale the rest.",
            ),
            (
                _pruning(lambda before, after, kept: kept**-0.5),
                "1/√kept repairs a choice at random; the largest weights hold more than their share.",
            ),
            (
                _pruning(lambda before, after, kept: before / after),
                "You multiplied the weights by the factor that their squares need.",
            ),
            (
                _pruning(lambda before, after, kept: pruned_normal("the smallest", kept)[1] ** -0.5),
                "p + 2tΦ'(t) is for normal weights; the kernel's are uniform: measure what is left.",
            ),
            (
                _pruning(lambda before, after, kept: 1 / kept),
                "Σ|w| would need 1/kept, after a choice at random; here it is Σw², after another choice.",
            ),
            (
                lambda weight, kept: prune_(weight, 1 - kept),
                "You removed the share `kept`; it is what stays.",
            ),
            (
                _pruning(order=lambda w: _ranks(w, 1)),
                "You ranked each row by itself: the largest of the whole tensor are to stay.",
            ),
            (
                _pruning(order=lambda w: _ranks(w, 0)),
                "You ranked each column by itself: the largest of the whole tensor are to stay.",
            ),
            (_pruning(order=lambda w: -w.abs()), "You kept the smallest weights."),
            (
                _pruning(order=lambda w: w),
                "You kept the largest w, signs and all; it is |w| that counts.",
            ),
            (
                _pruning(order=lambda w: torch.rand(w.shape)),
                "You kept weights at random, not the largest.",
            ),
        ),
        hints=(
            "Two steps: a threshold on |w|, and one factor for all that stays.",
            "The factor is √(Σw² before / Σw² after), measured.",
        ),
        because="The largest stay, and Σw² too, whatever the law of the weights.",
        solution="A quantile of |w| is the threshold, and the factor is measured, so that no law is needed:",
    ),
    Number(
        statement="Wide leaky ReLU layers of slope ½ on the left: each unit has 12 links to inputs chosen "
        "independently, Gaussian weights that keep $m$ on average, biases 0. Deep in the network, what is "
        "the noise per layer, $n\\operatorname{Var}(m'/m)$?",
        stars=3,
        minutes=8,
        answer=_noise(_C),
        tolerance=0.02,
        mistakes=(
            (_noise(_moment_factor(relu)), "That is with c = 6, a ReLU's; here the left side is not lost."),
            (
                _noise(_moment_factor(linear)),
                "That is with c = 3, of linear layers; slopes 1 and ½ raise it.",
            ),
            (_noise(_C) + 1, "That is the kurtosis at which the layers settle; the noise is one less."),
            (_C - 1, "That is a full matrix's; 12 links see a sample of the inputs."),
            (
                _C * (1 + 2 / _LINKS) - 1,
                "That is the first layer behind normal inputs, of kurtosis 3; deep in the network κ has "
                "settled.",
            ),
            (
                _noise(6 * (1 + _LEAK**4) / (1 + _LEAK**2)),
                "The kurtosis divides by the *squared* second moment: (1 + a²)/2 enters twice.",
            ),
        ),
        hints=(
            "Find c first: the kurtosis of a leaky ReLU of normal numbers.",
            "c = 3 · ((1 + a⁴)/2)/((1 + a²)/2)², a = ½; then the fixed point of κ' = c(1 + (κ − 1)/12).",
        ),
        because="c = 4.08, and κ settles at c · 11/(12 − c): a leak moves the pole from six links to four.",
        solution="E φ⁴ = 3(1 + a⁴)/2 and E φ² = (1 + a²)/2 give c = 6(1 + a⁴)/(1 + a²)² = 4.08. "
        "κ* = 4.08 · 11/7.92 = 5.67, and the noise is κ* − 1 = 4.67.",
    ),
    Open(
        statement='A headline: "Large networks contain small ones that need no training: initialization is '
        'all." Which results of this notebook speak for it, which against it, and which single experiment '
        "would you ask the authors for?",
        stars=3,
        minutes=6,
        hints=(
            "What had been trained when nothing had been trained?",
            "A mask is one bit for each weight. Where do these bits come from?",
        ),
        because="for it: a mask over untouched weights reads half of the unseen digits at step 0. Against "
        "it: the mask was made by several full trainings, and it stops working with other signs, so that the "
        "training is in the mask; and larger networks have to be rewound to a state after some training. I "
        "would ask for the same mask with signs drawn anew, and for the accuracy as a function of the number "
        "of trainings that the mask has cost.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
