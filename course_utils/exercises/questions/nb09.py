"""Exercises of notebook 09: what singular values tell, and which layers leave them alike."""

import math
from collections.abc import Callable
from statistics import NormalDist

import torch

from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Unreadable, Values
from course_utils.exercises.trying import check_entries, filled
from course_utils.initializers import lecun_normal_, orthogonal_
from course_utils.network_laws import product_spectrum_moment

_NORMAL = NormalDist()


def _moments(depth: int, width: int) -> dict[str, float]:
    """Return E s² and E s⁴ of a product of so many Gaussian matrices with Var(w) = 1/width."""
    fourth = square = 1.0
    for _ in range(depth):
        fourth, square = square + (1 + 1 / width) * fourth, square + 2 * fourth / width**2
    return {"second": 1.0, "fourth": fourth}


def _three(factor: float) -> dict[str, float]:
    """Return the moments of three 10 x 10 matrices if s² is multiplied by a factor."""
    return {"second": factor, "fourth": factor**2 * _moments(3, 10)["fourth"]}


def _chain_time(u: float, depth: float) -> float:
    """Return the integral of 1 / (u^(2 - 2/depth) (1 - u)), for depth 1, 2 or infinite."""
    log_odds = math.log(u / (1 - u))
    return {1: -math.log(1 - u), 2: log_odds, math.inf: log_odds - 1 / u}[depth]


def _chain_steps(depth: float) -> float:
    """Return the steps from u = 0.2 to 0.8 at rate 0.01."""
    return (_chain_time(0.8, depth) - _chain_time(0.2, depth)) / 0.01


def _hard_tanh_q(inside: float) -> float:
    """Return the q at which |z| < 1 has this probability."""
    return _NORMAL.inv_cdf((1 + inside) / 2) ** -2


def _isometry_numbers(keep_rms_) -> Values:
    """Return mean(w²) fan_in and the spread of s² of two shapes, and two shares of signs in steps of 25 %."""
    found = []
    for shape in ((96, 240), (240, 96)):
        weight = filled(keep_rms_, *shape)
        _check_haar(weight)
        squares = torch.linalg.svdvals(weight).square()
        spread = (squares.var() / squares.mean() ** 2).item()
        found += [shape[1] * weight.square().mean().item(), round(spread, 5)]
    generator, small = torch.Generator().manual_seed(12), torch.empty(400, 2, 2)
    for matrix in small:
        keep_rms_(matrix, generator)
    signs = small[:, 0, 0], small[:, 0, 0] * small[:, 1, 1]
    return (*found, *(25.0 * round(4 * (sign > 0).double().mean().item()) for sign in signs))


def _check_haar(weight: torch.Tensor) -> None:
    """Raise Unreadable unless entries are nearly normal, as those of Haar's law are."""
    try:
        check_entries(weight)
    except Unreadable as reason:
        raise Unreadable(f"some directions are preferred: {reason}") from None


def keep_rms_(tensor, generator):
    """Fill with orthonormal rows or columns of Haar measure, times what keeps the mean square forward."""
    rows, columns = tensor.shape
    gaussian = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(gaussian)
    q *= r.diagonal().sign()
    gain = math.sqrt(max(rows, columns) / columns)
    return tensor.copy_(gain * (q if rows >= columns else q.T))


def _scaled(gain: Callable, fill_: Callable = orthogonal_) -> Callable:
    """Return an initializer that multiplies what `fill_` draws by gain(rows, columns)."""
    return lambda tensor, generator: fill_(tensor, generator=generator).mul_(gain(*tensor.shape))


def _gain(rows: int, columns: int) -> float:
    return math.sqrt(max(rows, columns) / columns)


def _plain_qr_(tensor, generator):
    rows, columns = tensor.shape
    gaussian = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q, _ = torch.linalg.qr(gaussian)
    return tensor.copy_(q if rows >= columns else q.T)


def _one_sign_(tensor, generator):
    _plain_qr_(tensor, generator)
    return tensor.mul_(1 if torch.rand((), generator=generator) < 0.5 else -1)


def _left_of_svd_(tensor, generator):
    rows, columns = tensor.shape
    gaussian = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    u, _, _ = torch.linalg.svd(gaussian, full_matrices=False)
    return tensor.copy_(u if rows >= columns else u.T)


QUESTIONS = (
    Number(
        statement="An infinitely wide linear network has 12 layers of Gaussian weights and 20 of orthogonal "
        "ones, all with $\\operatorname{Var}(w) = 1/n$. What is the spread $V$ of its squared singular "
        "values?",
        stars=1,
        minutes=3,
        answer=product_spectrum_moment(12, 2) - 1,
        mistakes=(
            (32.0, "Only a Gaussian layer adds 1: an orthogonal one treats all directions alike."),
            (product_spectrum_moment(12, 2), "That is E s⁴; V is a variance, without the squared mean 1."),
            (20.0, "You counted the 20 layers that add nothing."),
            (math.sqrt(12), "V is a variance already: variances add, and no root is taken."),
        ),
        hints=("Spreads add: what does each kind of layer contribute?", "A rotation contributes nothing."),
        because="Each of the 12 Gaussian layers adds 1, a rotation adds nothing.",
        solution="Spreads add, 1 for a Gaussian layer and 0 for an orthogonal one: V = 12.",
    ),
    Number(
        statement="`orthogonal_`, gain 1, fills a layer with 100 inputs and 400 outputs. Its inputs have RMS "
        "1; there is no activation. What is the RMS of its outputs?",
        stars=1,
        minutes=3,
        answer=math.sqrt(100 / 400),
        mistakes=(
            (1.0, "The norm is kept; it is now the norm of 400 numbers instead of 100."),
            (100 / 400, "That is the mean square of the outputs: take its root."),
            (math.sqrt(400 / 100), "The norm does not grow, and 400 numbers share it."),
        ),
        hints=("Which are orthonormal, the 100 columns or the 400 rows?", "|Wx|² = |x|² = 100."),
        because="|Wx|² = |x|² = 100, which 400 outputs share: a mean square of 1/4.",
        solution="The columns are orthonormal, |Wx|² = |x|² = 100. Over 400 outputs this is a mean square of "
        "1/4, an RMS of 1/2. So says the variance, too: 100 Var(w) = 100/400.",
    ),
    Choice(
        statement="The Jacobian of one wide layer without biases has 60 % of its squared singular values at "
        "5/3 and 40 % at 0. Which layer is it: `orthogonal ReLU`, `orthogonal hard tanh`, `orthogonal tanh`, "
        "or `Gaussian ReLU`?",
        stars=2,
        minutes=4,
        options={
            "orthogonal hard tanh": "Slopes are 0 or 1, and with this q 60 % of the units lie between −1 and "
            "1; a squared gain of 5/3 makes their mean 1.",
            "orthogonal ReLU": "Without biases a ReLU has half of its units on, whatever q, not 60 %.",
            "orthogonal tanh": "The slopes of tanh take all values from 0 to 1, not two.",
            "Gaussian ReLU": "Gaussian weights have singular values of all sizes: no spike but that at 0.",
        },
        answer="orthogonal hard tanh",
        hints=(
            "Two values only: what does that say of the slopes, and what of the weights?",
            "Which activation has slopes 0 and 1, and lets their shares depend on q?",
        ),
        solution="Two values need weights that add none of their own, and slopes of two values: ReLU or hard "
        "tanh. ReLU's shares are one half each; those of hard tanh depend on q.",
    ),
    Experiment(
        statement="Draw products of three Gaussian $10\\times10$ matrices, $\\operatorname{Var}(w) = 1/10$: "
        "at least 10,000 of them. Average $s^2$ (`second`) and $s^4$ (`fourth`) over singular values and "
        "products.",
        stars=2,
        minutes=8,
        answer=_moments(3, 10),
        tolerance=0.034,  # 3.7 standard errors of E s⁴ for 10,000 products
        mistakes=(
            (
                {"second": 1.0, "fourth": product_spectrum_moment(3, 2)},
                "L + 1 is the law of infinite width; at n = 10 the recursion of the notebook says more.",
            ),
            (_moments(2, 10), "Those are products of two matrices."),
            (_moments(4, 10), "Those are products of four matrices."),
            (
                _three(8.0),
                "Your weights have the variance 2/10: each of three layers doubles s².",
            ),
            (
                {"second": 10.0, "fourth": 10 * _moments(3, 10)["fourth"]},
                "You summed over the ten singular values of a product instead of averaging.",
            ),
            (
                {"second": 1.0, "fourth": _moments(3, 10)["fourth"] - 1},
                "That is the spread V of s²; `fourth` is E s⁴, without the mean taken off.",
            ),
            (
                _three(1e3),
                "Your weights have the variance 1: each of three layers makes s² ten times larger.",
            ),
            (_three(1e-3), "Your weights have the standard deviation 1/10; 1/10 is their variance."),
        ),
        hints=(
            "`torch.linalg.svdvals` takes a whole batch of matrices, (products, 10, 10).",
            "Of `torch.linalg.svdvals(A @ B @ C).square()` take the mean, and that of its square.",
        ),
        because="The mean is kept, and the fourth moment is 4.7, well above the 4 of infinite width.",
        solution="J = W₃W₂W₁ for batches (10000, 10, 10) of `torch.randn` over √10. The recursion of the "
        "notebook gives E s⁴ = 4.725 at n = 10, L = 3.",
    ),
    Number(
        statement="An infinitely wide network of 200 hard tanh layers has orthogonal weights, and Gaussian "
        "pre-activations with the same $q$ in each layer. (Its slope is 1 for $|z| < 1$, else 0.) At which "
        "$q$ is the spread $V$ equal to 1?",
        stars=2,
        minutes=8,
        answer=_hard_tanh_q(200 / 201),
        tolerance=0.02,
        mistakes=(
            (1 / math.sqrt(8 * 200), "8q² is the law of tanh, whose slope changes at any q."),
            (math.sqrt(_hard_tanh_q(200 / 201)), "That is the standard deviation √q."),
            (
                _NORMAL.inv_cdf(200 / 201) ** -2,
                "That is P(z < 1) = 200/201: z must not fall below −1 either.",
            ),
            (_hard_tanh_q(1 / 2), "There one layer has V = 1 already, and spreads of 200 layers add."),
        ),
        hints=(
            "φ'⁴ = φ'²: a layer's contribution depends on p = P(|z| < 1) alone.",
            "It is p/p² − 1 = 1/p − 1, and shall be 1/200.",
        ),
        because="1/p − 1 = 1/200 at q = 0.127, 4.5 times what tanh may have: inside −1 and 1 nothing bends.",
        solution="A layer adds p/p² − 1 = 1/p − 1 = 1/200, so p = 200/201 = P(|z| < 1). Then 1/√q = 2.81, "
        "q = 0.127. For tanh it would be 0.028 (0.025 by 8q²): hard tanh is exactly linear until a rare unit "
        "saturates.",
    ),
    Number(
        statement="A chain of $D\\to\\infty$ equal numbers with product $u$ learns the target 1: "
        "$\\frac{du}{dt} = \\eta\\,u^2(1 - u)$. How many steps does it take from $u = 0.2$ to $0.8$ at "
        "$\\eta = 0.01$?",
        stars=3,
        minutes=8,
        answer=_chain_steps(math.inf),
        mistakes=(
            (_chain_steps(1), "That is one layer: du/dt = η (1 − u)."),
            (_chain_steps(2), "That is two layers: the power of u is 2 − 2/D, and D is not 2."),
            (_chain_steps(math.inf) * 0.01, "That is the integral; a step covers only η = 0.01 of it."),
            ((1 / 0.2 - 1 / 0.8) / 0.01, "You left out 1 − u: near the target the error gets small."),
        ),
        hints=(
            "Separate the variables: steps = (1/η) ∫ du/(u²(1 − u)).",
            "1/(u²(1 − u)) = 1/u² + 1/u + 1/(1 − u).",
        ),
        because="652 steps, five times those of a single layer, and a finite number for any depth.",
        solution="The integral is ln(u/(1 − u)) − 1/u, from 0.2 to 0.8: 2 ln 4 + 5 − 1.25 = 6.52. Over η = "
        "0.01 these are 652 steps.",
    ),
    Function(
        statement="Write `keep_rms_`: fill a matrix `(out, in)` in place, drawing from `generator`, with "
        "orthonormal rows or columns (the fewer of them), none preferred (Haar), times one factor: inputs "
        "N(0, 1) shall give outputs of mean square 1, for wide and tall matrices.",
        stars=3,
        minutes=12,
        stub="def keep_rms_(tensor, generator):",
        measure=_isometry_numbers,
        names=(
            "fan_in · mean(w²) of (96, 240)",
            "spread of its s²",
            "fan_in · mean(w²) of (240, 96)",
            "spread of its s²",
            "2 × 2 matrices with a positive upper left entry, to the nearest 25 %",
            "those whose diagonal entries have one sign",
        ),
        right=keep_rms_,
        tolerance=0.02,  # all is exact: of 400 matrices, half and 3/8 are 5 standard errors apart
        mistakes=(
            (
                _scaled(lambda rows, columns: 1.0),
                "Of 96 inputs into 240 outputs the norm is kept, but 240 numbers share it.",
            ),
            (
                _scaled(lambda rows, columns: math.sqrt(max(rows, columns) / rows)),
                "You divided by the number of outputs: that keeps gradients on their way back.",
            ),
            (
                _scaled(lambda rows, columns: math.sqrt(rows / columns)),
                "√(out/in) is right for tall matrices; in wide ones it is the rows that are orthonormal.",
            ),
            (
                _scaled(lambda rows, columns: max(rows, columns) / columns),
                "That is the factor on the variance: weights take its root.",
            ),
            (
                _scaled(_gain, _plain_qr_),
                "The scale is right, but the upper left entry is never positive: LAPACK chose the signs.",
            ),
            (
                _scaled(_gain, _one_sign_),
                "One sign for all is fair to the corner; but between columns LAPACK chose the signs.",
            ),
            (
                _scaled(_gain, _left_of_svd_),
                "The scale is right, but the upper left entry is mostly negative: the SVD chose the signs.",
            ),
            (
                _scaled(lambda rows, columns: 1.0, lecun_normal_),
                "The variance is right, but singular values differ: rows are not orthonormal.",
            ),
        ),
        hints=(
            "QR with the signs of R, of the tall one of the two shapes; then count what shares the norm.",
            "Entries have the variance factor²/max(out, in), and shall have 1/in.",
        ),
        because="All singular values are equal, the mean square is kept either way, and signs are fair.",
        solution="Orthonormal columns of the taller shape, with the signs of R, have entries of variance "
        "1/max(out, in); mean squares are kept at 1/in, so the factor is √(max(out, in)/in):",
    ),
    Open(
        statement="With small $q$ an orthogonal tanh network is an isometry because it is nearly linear. Is "
        "there an activation that is an isometry, with orthogonal weights, *and* far from linear? What would "
        "it cost? Answer in a sentence or two.",
        stars=3,
        minutes=6,
        hints=(
            "Which slopes leave all singular values alone?",
            "Slopes of 1 and −1 do. Where may they change?",
        ),
        because="φ(z) = |z| has slopes ±1, so DQ is orthogonal in every layer, at any q, and V = 0 "
        "exactly; so has any zigzag of such slopes. The cost: |z| cannot tell z from −z, and where two "
        "inputs "
        "are on different sides of a kink their gradients get opposite signs. Isometry is a property at one "
        "input: it says "
        "nothing of how two inputs fare, whose angle |z| shrinks twice as fast as ReLU does.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
)
