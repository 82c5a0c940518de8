"""What the theory computes with: expectations over normal numbers.

The one place that integrates, by Gauss-Legendre on panels, in float64. They end at a function's kinks and
shrink towards them, in `gaussian_expectation`, for many normal laws at once, and `pair_expectation`; where
nothing is known of the function, they are halved until they agree, in `adaptive_expectation`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from course_utils.checks import check_correlation

Function = Callable[[torch.Tensor], torch.Tensor]
Kinks = Sequence[float]

END = 12.0  # standard deviations; beyond, the normal density is below 1e-31
_PANELS = np.array([-END, -8, -5, -3, -1, 1, 3, 5, 8, END])
# Panels shrink towards a kink by factors of four: whatever happens within 1e-4 of it is still resolved.
_AROUND_A_KINK = np.concatenate([s * 1.5 * 4.0 ** -np.arange(10) for s in (-1, 1)] + [[0.0]])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)  # of each panel
_TOLERANCE = 1e-9  # of each panel halved, relative to the whole


def _normal_rule(edges: NDArray) -> tuple[NDArray, NDArray]:
    """Return nodes and weights (..., nodes) for N(0, 1), 16 of them between two `edges` (..., edges)."""
    half = np.diff(edges, axis=-1)[..., None] / 2
    z = (edges[..., :-1, None] + half * (1 + _NODES)).reshape(*edges.shape[:-1], _NODES.size * half.shape[-2])
    return z, (half * _WEIGHTS).reshape(z.shape) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def _rule(breaks: NDArray) -> tuple[NDArray, NDArray]:
    """Return nodes and weights (..., nodes) for N(0, 1), with panels that end at `breaks` (..., kinks)."""
    breaks = np.clip(np.nan_to_num(breaks, nan=0.0), -END, END)
    around = breaks[..., None] + _AROUND_A_KINK
    around = around.reshape(*breaks.shape[:-1], breaks.shape[-1] * _AROUND_A_KINK.size)
    panels = np.broadcast_to(_PANELS, (*breaks.shape[:-1], _PANELS.size))
    edges = np.clip(np.concatenate([panels, around], axis=-1), -END, END)
    return _normal_rule(np.unique(edges) if edges.ndim == 1 else np.sort(edges, axis=-1))


_RULE_AT_ZERO = _rule(np.zeros(1))


def evaluate(function: Function, z: NDArray) -> NDArray:
    """Return function(z), of the shape of `z`.

    Raises: ValueError if the function returns no tensor of that shape, nan or inf.
    """
    values = function(torch.from_numpy(z))
    if not isinstance(values, torch.Tensor) or values.shape != z.shape:
        raise ValueError(f"the function must keep the shape {z.shape}; it returned {values}")
    numbers = values.detach().numpy()  # detach: the function may have parameters that learn, as PReLU does
    if not np.isfinite(numbers).all():
        raise ValueError("the function must be finite on the whole line; it returned nan or inf")
    return numbers


def gaussian_expectation(
    function: Function, std: ArrayLike = 1.0, mean: ArrayLike = 0.0, kinks: Kinks = (0.0,)
) -> NDArray | float:
    """Return E f(mean + std * Z), Z ~ N(0, 1), for each entry of `std` and `mean`, which broadcast.

    About 1e-13 for functions that are smooth apart from kinks and jumps at `kinks`. A kink elsewhere costs
    accuracy (hard tanh with kinks=(0,): 1e-5), and so do many oscillations within `std`. What is narrower
    than 1e-6 `std`, as the slope of tanh is at q > 1e12, may be missed.
    Raises: ValueError unless `mean` is finite and 0 <= std < inf, and as `evaluate`.
    """
    std, mean = np.asarray(std, dtype=float), np.asarray(mean, dtype=float)
    if not ((std >= 0) & (std < np.inf)).all() or not np.isfinite(mean).all():
        raise ValueError(f"expected a finite mean and a finite std >= 0; got mean {mean} and std {std}")
    if mean.any() or any(kinks):
        with np.errstate(divide="ignore", invalid="ignore"):
            breaks = (np.asarray(kinks, dtype=float) - mean[..., None]) / std[..., None]
        nodes, weights = _rule(breaks)
    else:
        nodes, weights = _RULE_AT_ZERO  # the kink at 0 stays there for every std
    values = evaluate(function, mean[..., None] + std[..., None] * nodes)
    return values @ weights if weights.ndim == 1 else (values * weights).sum(axis=-1)


def _pair_expectation(function: Function, c: float, q: float, kinks: Kinks) -> float:
    """Return `pair_expectation` as a double integral: given z1 = sqrt(q) u, z2 ~ N(c z1, (1 - c**2) q)."""
    root = np.sqrt(q)
    breaks = np.asarray(kinks, dtype=float) / root
    if c:  # the inner integral changes fastest where z1, or z2's mean c z1, is at a kink
        breaks = np.concatenate([breaks, breaks / c])
    nodes, weights = _rule(breaks)
    inner = gaussian_expectation(function, root * np.sqrt(max(0.0, 1 - c**2)), root * c * nodes, kinks)
    return float((evaluate(function, root * nodes) * inner) @ weights)


def pair_expectation(function: Function, c: ArrayLike, q: ArrayLike, kinks: Kinks) -> NDArray | float:
    """Return E f(z1) f(z2), z1 and z2 ~ N(0, q) with correlation c; `c` and `q` broadcast.

    Raises: ValueError unless 0 < q < inf and |c| <= 1, and as `evaluate`.
    """
    c, q = np.broadcast_arrays(np.asarray(c, dtype=float), np.asarray(q, dtype=float))
    if not (np.isfinite(q) & (q > 0)).all():
        raise ValueError(f"a correlation needs 0 < q < inf; got {q}")
    check_correlation(c)
    values = [_pair_expectation(function, *pair, kinks) for pair in zip(c.flat, q.flat, strict=True)]
    return np.reshape(values, c.shape)[()]


def adaptive_expectation(function: Function) -> float:
    """Return E f(Z), Z ~ N(0, 1), for f >= 0, halving panels until each agrees with its two halves.

    Kinks and jumps need not be declared: the relative error is below 1e-6, unless all of f hides between two
    nodes, about 0.05 apart.
    Raises: ValueError if that takes too many panels, if f grows so fast that the integral has no end within
    `END` standard deviations, and as `evaluate`.
    """
    low, high, done = _PANELS[:-1], _PANELS[1:], 0.0

    def integrals(low: NDArray, high: NDArray) -> NDArray:
        z, weights = _normal_rule(np.stack([low, high], axis=-1))
        return (evaluate(function, z) * weights).sum(axis=-1)

    while 0 < low.size <= 4096:
        middle = (low + high) / 2
        low, high, whole = np.append(low, middle), np.append(middle, high), integrals(low, high)
        halves = integrals(low, high)
        refined = halves.reshape(2, -1).sum(axis=0)
        rough = np.abs(refined - whole) > _TOLERANCE * (done + refined.sum())
        done += refined[~rough].sum()
        low, high = low[np.tile(rough, 2)], high[np.tile(rough, 2)]
    if low.size:
        raise ValueError("the integral does not converge: the function oscillates too fast")
    if (evaluate(function, np.array([-END, END])) * np.exp(-(END**2) / 2) > 1e-7 * done).any():
        raise ValueError(f"the function grows too fast: no limit within {END:g} standard deviations")
    return float(done)
