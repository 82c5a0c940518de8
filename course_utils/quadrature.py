"""Expectations over normal numbers: the one place that integrates.

Piecewise Gauss-Legendre with panels that end where a function is not smooth. All numbers are float64.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Function = Callable[[torch.Tensor], torch.Tensor]
Kinks = Sequence[float]

END = 12.0  # standard deviations; beyond, the normal density is below 1e-31
_PANELS = np.array([-END, -8, -5, -3, -1, 1, 3, 5, 8, END])
# Panels shrink towards a kink by factors of four: whatever happens within 1e-4 of it is still resolved.
_AROUND_A_KINK = np.concatenate([s * 1.5 * 4.0 ** -np.arange(10) for s in (-1, 1)] + [[0.0]])
_GAIN_ERROR = 1e-9  # of each panel, relative to the whole


@lru_cache
def _legendre() -> tuple[NDArray, NDArray]:
    return np.polynomial.legendre.leggauss(16)


def _rule(breaks: NDArray, halved: bool) -> tuple[NDArray, NDArray]:
    """Return nodes and weights (..., nodes) for N(0, 1), with panels that end at `breaks` (..., kinks)."""
    breaks = np.clip(np.nan_to_num(breaks, nan=0.0), -END, END)
    around = (breaks[..., None] + _AROUND_A_KINK).reshape(*breaks.shape[:-1], -1)
    panels = np.broadcast_to(_PANELS, (*breaks.shape[:-1], _PANELS.size))
    edges = np.clip(np.concatenate([panels, around], axis=-1), -END, END)
    edges = np.unique(edges) if edges.ndim == 1 else np.sort(edges, axis=-1)
    if halved:
        middles = (edges[..., :-1] + edges[..., 1:]) / 2
        edges = np.sort(np.concatenate([edges, middles], axis=-1), axis=-1)
    nodes, weights = _legendre()
    half = np.diff(edges, axis=-1)[..., None] / 2
    z = (edges[..., :-1, None] + half * (1 + nodes)).reshape(*edges.shape[:-1], -1)
    weights = (half * weights).reshape(z.shape)
    return z, weights * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


@lru_cache
def _rule_at_zero(halved: bool) -> tuple[NDArray, NDArray]:
    return _rule(np.zeros(1), halved)


def evaluate(function: Function, z: NDArray) -> NDArray:
    """Return function(z), having made sure that it is an element-wise function of a tensor."""
    try:
        values = function(torch.from_numpy(z))
    except Exception as error:
        raise ValueError(f"the function must take a tensor of any shape; on {z.shape}: {error}") from error
    if not isinstance(values, torch.Tensor) or values.shape != z.shape:
        got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise ValueError(f"the function must keep the shape {z.shape}; it returned {got}")
    if not torch.isfinite(values).all():
        raise ValueError("the function must be finite on the whole line; it returned nan or inf")
    return values.detach().numpy()  # detach: the function may have parameters that learn, as PReLU does


def _expectation(
    function: Function, std: ArrayLike, mean: ArrayLike, kinks: Kinks, halved: bool
) -> NDArray | float:
    std, mean = np.asarray(std, dtype=float), np.asarray(mean, dtype=float)
    if not np.isfinite(std).all() or not np.isfinite(mean).all():
        raise ValueError(f"mean, and std, the root of a q, must be finite; got {mean} and {std}")
    if mean.any() or np.any(kinks):
        with np.errstate(divide="ignore", invalid="ignore"):
            breaks = (np.asarray(kinks, dtype=float) - mean[..., None]) / std[..., None]
        nodes, weights = _rule(breaks, halved)
    else:
        nodes, weights = _rule_at_zero(halved)  # the kink at 0 stays there for every std
    values = evaluate(function, mean[..., None] + std[..., None] * nodes)
    return values @ weights if weights.ndim == 1 else (values * weights).sum(axis=-1)


def gaussian_expectation(
    function: Function, std: ArrayLike = 1.0, mean: ArrayLike = 0.0, kinks: Kinks = (0.0,)
) -> NDArray | float:
    """Return E f(mean + std * Z), Z ~ N(0, 1), for each entry of `std` and `mean`, which broadcast.

    Piecewise Gauss-Legendre with panels that end at `kinks`: about 1e-13 for functions that are smooth apart
    from kinks and jumps there. A kink elsewhere costs accuracy (hard tanh with kinks=(0,): 1e-5), and so do
    many oscillations within `std`; `quadrature_error` tells how much. What is narrower than 1e-6 `std`, as
    the slope of tanh is at q > 1e12, may be missed altogether.

    Raises: ValueError if `std` or `mean` is not finite, or if `function` fails on a tensor, changes the shape
    or returns nan or inf.
    """
    return _expectation(function, std, mean, kinks, halved=False)


def quadrature_error(
    function: Function, std: ArrayLike = 1.0, mean: ArrayLike = 0.0, kinks: Kinks = (0.0,)
) -> NDArray | float:
    """Return how far `gaussian_expectation` moves when every panel is halved: an estimate of its error.

    Raises: as `gaussian_expectation`.
    """
    fine = _expectation(function, std, mean, kinks, halved=True)
    return np.abs(fine - _expectation(function, std, mean, kinks, halved=False))


def _pair_expectation(function: Function, q: float, c: float, kinks: Kinks) -> float:
    """Return E f(z1) f(z2) for z1, z2 ~ N(0, q) with correlation c, as a double integral.

    Given z1 = sqrt(q) u, z2 ~ N(c z1, (1 - c**2) q). As a function of u the inner integral changes fastest
    where z1 or its conditional mean c z1 is at a kink.
    """
    root = np.sqrt(q)
    breaks = np.asarray(kinks, dtype=float) / root
    if c:
        breaks = np.concatenate([breaks, breaks / c])
    nodes, weights = _rule(breaks, halved=False)
    inner = gaussian_expectation(function, root * np.sqrt(max(0.0, 1 - c**2)), root * c * nodes, kinks)
    return float((evaluate(function, root * nodes) * inner) @ weights)


def pair_expectation(function: Function, q: ArrayLike, c: ArrayLike, kinks: Kinks) -> NDArray | float:
    """Return E f(z1) f(z2), z1 and z2 ~ N(0, q) with correlation c; `q` and `c` broadcast.

    Raises: ValueError unless 0 < q < inf and |c| <= 1, and as `gaussian_expectation`.
    """
    q, c = np.broadcast_arrays(np.asarray(q, dtype=float), np.asarray(c, dtype=float))
    if not (np.isfinite(q) & (q > 0)).all():
        raise ValueError(f"a correlation needs 0 < q < inf; got {q}")
    if not (np.abs(c) <= 1 + 1e-12).all():  # what rounding adds is forgiven
        raise ValueError(f"a correlation lies between -1 and 1; got {c}")
    values = [_pair_expectation(function, *pair, kinks) for pair in zip(q.flat, c.flat, strict=True)]
    return np.reshape(values, c.shape)[()]


def adaptive_expectation(function: Function) -> float:
    """Return E f(Z) for f >= 0, halving panels until each agrees with its two halves."""
    x, weights = _legendre()
    low, high, total, done = _PANELS[:-1], _PANELS[1:], np.nan, 0.0

    def integrals(low: NDArray, high: NDArray) -> NDArray:
        half = (high - low)[:, None] / 2
        z = low[:, None] + half * (1 + x)
        return (evaluate(function, z) * half * weights * np.exp(-(z**2) / 2)).sum(axis=1)

    for _ in range(60):
        middle = (low + high) / 2
        halves = integrals(np.append(low, middle), np.append(middle, high)).reshape(2, -1)
        refined = halves.sum(axis=0)
        total = done + refined.sum()
        rough = np.abs(refined - integrals(low, high)) > _GAIN_ERROR * total
        done += refined[~rough].sum()
        if not rough.any():
            return float(total / np.sqrt(2 * np.pi))
        low, middle, high = low[rough], middle[rough], high[rough]
        low, high = np.append(low, middle), np.append(middle, high)
        if low.size > 4096:
            break
    raise ValueError("the integral of the function's square does not converge: it oscillates too fast")
