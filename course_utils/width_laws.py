"""Theory of one small step in wide ReLU networks: how far each layer moves, by width, rates and optimizer.

The network is x - n - n - logits, without biases, He weights, output weights N(0, output_std²), no ReLU that
switches; the step is taken on one input. Factors on the learning rate are those of the three matrices.

Raises: ValueError for a width below 1, and for a name that is none of those listed.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from course_utils.checks import check_arguments, check_name

RULES = ("input rate", "hidden rate", "output rate", "output std")
_POWERS = {"Adam": (0.0, -1.0, -1.0), "SGD": (1.0, 0.0, -1.0)}  # of the width in the rates of muP


def mup(n: int, base: int, optimizer: str = "Adam", without: Sequence[str] = ()) -> tuple[NDArray, float]:
    """Return the factors on the rates (3,) and the output std of muP; at width `base` all is standard.

    optimizer: "Adam" or "SGD". without: the `RULES` that are left at their standard value, a factor of 1 or
    1 / sqrt(n). Source: Yang et al. (2022).
    """
    check_arguments(width=(n, base))
    for rule in without:
        check_name("without", rule, RULES)
    powers = _POWERS[check_name("optimizer", optimizer, _POWERS)]
    kept = [power * (rule not in without) for power, rule in zip(powers, RULES, strict=False)]
    output_std = 1 / math.sqrt(n) if "output std" in without else math.sqrt(base) / n
    return (n / base) ** np.array(kept), output_std


def first_step_law(
    n: int, rates: ArrayLike, output_std: float, x: ArrayLike, error: ArrayLike, optimizer: str = "Adam"
) -> NDArray:
    """Return the RMS changes of h_1, h_2 and the logits per unit of learning rate, (3, networks).

    rates: the factors (3,). x: the input (pixels,). error: the gradient at the logits (networks, classes).
    Of the units that are on, `first` is the RMS move in layer 1 and sqrt(Q) in layer 2; `aligned` is the part
    of the latter along the gradient, which is made of the output weights.
    """
    check_arguments(width=n, output_std=output_std)
    check_name("optimizer", optimizer, _POWERS)
    x, error = np.asarray(x, dtype=float), np.atleast_2d(error)
    size = np.linalg.norm(error, axis=1)
    step = _adam if optimizer == "Adam" else partial(_sgd, output_std * size)
    first, Q, aligned, own = step(n, np.asarray(rates, dtype=float), x, error)
    passed = n / 2 * output_std * aligned * (error.T / size)
    logits = np.sqrt(((own.T + passed) ** 2).mean(axis=0) + n / 2 * output_std**2 * Q)
    return np.stack(np.broadcast_arrays(first / math.sqrt(2), np.sqrt(Q / 2), logits))


_Parts = tuple[NDArray, NDArray, NDArray, NDArray]


def _adam(n: int, rates: NDArray, x: NDArray, error: NDArray) -> _Parts:
    """Return first, Q, aligned and the logits' own move for steps of signs; E relu is a / sqrt(pi)."""
    pull = n * math.sqrt((x**2).mean() / math.pi)
    first, own = rates[0] * np.abs(x).sum(), rates[1] * pull
    Q = own**2 + 4 / math.pi * own * first + (1 + 2 / math.pi) * first**2
    return first, Q, math.sqrt(2 / math.pi) * (own + first), rates[2] * pull * np.sign(error)


def _sgd(slope: NDArray, n: int, rates: NDArray, x: NDArray, error: NDArray) -> _Parts:
    """Return the same for steps along the gradient: each unit's is its gradient times a squared length.

    slope: RMS gradient of the units that are on, (networks,).
    """
    pull = n * (x**2).mean()
    first, own = rates[0] * (x**2).sum() * slope, rates[1] * pull * slope
    return first, (own + first) ** 2 + first**2, own + first, rates[2] * pull * error
