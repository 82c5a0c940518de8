"""Measurements of tensors: second moments of any size and precision, and what only layers' weights have."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

NAN = math.nan


class Moments(NamedTuple):
    """A tensor's mean, and the parts of its second moment that are constant and that vary over the batch."""

    mean: float
    constant: float
    varying: float

    @property
    def second(self) -> float:
        """The second moment."""
        return self.constant + self.varying


UNKNOWN = Moments(NAN, NAN, NAN)


def second_moment(x: Tensor) -> Tensor:
    """Return the mean square, accumulated in float64: right from 1e-150 to 1e150."""
    numel, x = x.numel(), x.coalesce().values() if x.is_sparse else x.detach()
    longest = max(x.shape, default=1)
    # In pieces of 2 MB, as each is copied to float64.
    pieces = x.split(max(1, 2**18 * longest // numel), x.shape.index(longest)) if numel > 2**18 else (x,)
    return sum(torch.linalg.vector_norm(piece, dtype=torch.float64).square() for piece in pieces) / numel


def quick_second_moment(x: Tensor) -> float:
    """Return the mean square to six digits, three times faster where no square is far out."""
    if x.dtype == torch.float32 and x.device.type == "cpu" and not x.is_sparse:
        norm = torch.linalg.vector_norm(x.detach()).item()
        if 1e-12 < norm / math.sqrt(max(x.numel(), 1)) < 1e12:
            return norm**2 / x.numel()
    return second_moment(x).item()


def moments(x: Tensor, batch_dim: int) -> Moments:
    """Return the moments of a tensor, those of a scalar as if it were a batch of one."""
    x = x.detach() if x.ndim else x.detach()[None]
    if not x.numel():
        return UNKNOWN
    mean = x.mean(batch_dim, dtype=torch.float64)
    constant = mean.square().mean()
    varying = (second_moment(x) - constant).clamp_(min=0)  # rounding may leave -1e-16
    return Moments(*torch.stack([mean.mean(), constant, varying]).tolist())


def sample(x: Tensor, limit: int = 2**18) -> Tensor:
    """Return a vector of at most `limit` evenly spaced entries, in float64."""
    steps, sizes = [1] * x.ndim, list(x.shape)
    while math.prod(sizes) > limit:
        i = sizes.index(max(sizes))
        steps[i] += 1
        sizes[i] = -(-x.shape[i] // steps[i])
    return x.detach()[tuple(slice(None, None, step) for step in steps)].flatten().double()


def has_identical_units(weight: Tensor, bias: Tensor | None, out_dim: int) -> bool:
    """Return whether all units, along `out_dim`, have the same weights and biases."""
    units = weight.detach().movedim(out_dim, 0)
    if len(units) < 2 or not torch.equal(units[0], units[1]):
        return False
    return bool((units == units[:1]).all()) and (bias is None or bool((bias == bias[0]).all()))


def is_orthogonal(weight: Tensor) -> bool:
    """Return whether eight of the rows, or of the columns if these are fewer, are orthogonal."""
    if weight.ndim < 2:
        return False
    matrix = weight.detach().flatten(1)
    matrix = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)[:8].double()
    limit = 1e-4 * matrix[0] @ matrix[0]
    if len(matrix) < 2 or (matrix[0] @ matrix[1]).abs() >= limit:
        return False
    return bool((matrix @ matrix.T).fill_diagonal_(0).abs().max() < limit)


def entries(weight: Tensor) -> tuple[bool, float, float]:
    """Return whether a weight is orthogonal, its second moment, and its largest absolute value."""
    low, high = torch.aminmax(weight.detach())
    return is_orthogonal(weight), quick_second_moment(weight), max(-low.item(), high.item())
