"""Theory of memory in time: gated recurrences, and units whose time scales follow a law.

A unit of time scale tau keeps exp(-t / tau) of a small state after t steps. All times are in steps.

SciPy takes long to import, so the function that needs it does that.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from course_utils.checks import check_arguments, check_name

LAWS = ("log-uniform", "uniform")  # of the time scale


def leaky_gradient(keep: float, gain: float, depth: int) -> float:
    """Return E |M**depth g|**2 for |g| = 1, M = keep + gain * G, with one Gaussian G, n Var = 1, wide.

    The sum over k of binom(depth, k)**2 keep**(2 (depth - k)) gain**(2 k): powers of one wide Gaussian matrix
    are uncorrelated, and each keeps the norm. Per step it tends to (keep + gain)**2, where fresh matrices
    would give keep**2 + gain**2.
    """
    check_arguments(keep=keep, gain=gain, depth=depth)
    terms = (math.comb(depth, k) * keep ** (depth - k) * gain**k for k in range(depth + 1))
    return math.fsum(term**2 for term in terms)


def mean_memory(lag: ArrayLike, shortest: float, longest: float, law: str) -> NDArray | float:
    """Return E exp(-lag / tau), tau or ln tau uniform from `shortest` to `longest`; shape of lag.

    With the exponential integrals E_k: log-uniform (E_1(lag / longest) - E_1(lag / shortest)) over
    ln(longest / shortest), uniform the same difference of tau E_2(lag / tau) over longest - shortest.
    Raises: ValueError for a negative lag, an unknown law, and unless 0 < shortest < longest < inf.
    """
    from scipy.special import exp1, expn

    check_arguments(lag=lag)
    if not 0 < shortest < longest < math.inf:
        raise ValueError(f"expected 0 < shortest < longest < inf; got {shortest} and {longest}")
    short, long = (np.asarray(lag, dtype=float) / tau for tau in (shortest, longest))
    if check_name("law", law, LAWS) == "uniform":
        return (longest * expn(2, long) - shortest * expn(2, short)) / (longest - shortest)
    tiny = 1e-300  # where lag is 0 both integrals are infinite, and their difference is the logarithm
    return (exp1(long + tiny / longest) - exp1(short + tiny / shortest)) / math.log(longest / shortest)
