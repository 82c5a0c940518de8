"""The checks of arguments that several modules share: names, numbers, and functions of a tensor."""

from collections.abc import Callable, Collection

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

_WHOLE = {"depth": 0, "width": 1, "count": 1}  # integers, and the least that each may be


def check_name(name: str, value: str, known: Collection[str]) -> str:
    """Return `value` if it is one of the `known` ones, and raise a ValueError that lists them if not."""
    if value not in list(known):  # a list, for a set or a dict would fail on what has no hash
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return value


def check_arguments(**passed: ArrayLike) -> None:
    """Check gains, second moments and the like, and sizes, by name; each is a number or an array.

    Raises: ValueError unless depth is an integer >= 0, width and count are integers >= 1, and all others are
    in [0, inf).
    """
    for name, value in passed.items():
        least, numbers = _WHOLE.get(name, 0), np.asarray(value)
        whole = name in _WHOLE
        if not ((numbers >= least) & (numbers < np.inf)).all() or (whole and numbers.dtype.kind not in "iu"):
            kind = "an integer" if whole else "a number"
            raise ValueError(f"{name} must be {kind}, {least} <= {name} < inf; got {name}={value}")


def check_correlation(c: ArrayLike) -> None:
    """Raise a ValueError unless |c| <= 1; what rounding adds, in float32 too, is forgiven."""
    if not (np.abs(c) <= 1 + 1e-6).all():
        raise ValueError(f"a correlation lies between -1 and 1; got {c}")


def check_element_wise(function: Callable[[Tensor], Tensor], name: str | None = None) -> str:
    """Return the name of a function of a tensor, having tried it on a few numbers between -3 and 3.

    Raises: ValueError if it fails, changes shape or dtype, returns nan or inf, lets one element depend on
    another or overwrites its argument.
    """
    probe = torch.linspace(-3, 3, 8, dtype=torch.float64)
    name = name or getattr(function, "__name__", "custom")
    try:
        values, alone = function(given := probe.clone()), function(probe[::2].clone())
    except Exception as error:
        raise ValueError(f"{name} must take a tensor of any shape; on one of shape (8,): {error}") from error
    got = (tuple(values.shape), values.dtype) if isinstance(values, Tensor) else type(values).__name__
    if got != ((8,), probe.dtype):
        raise ValueError(f"{name} must keep shape (8,) and dtype torch.float64; it returned {got}")
    for holds, wanted in (
        (values.isfinite().all(), f"be finite; at {probe.tolist()} it is {values.tolist()}"),
        (torch.allclose(alone, values[::2]), "give each element its own value, whatever the others are"),
        (torch.equal(given, probe), "not overwrite its argument, as functions with inplace=True do"),
    ):
        if not holds:
            raise ValueError(f"{name} must {wanted}")
    return name
