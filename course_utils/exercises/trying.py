"""What a learner's function does to tensors and models: does it draw, by which law, in place?

No check refuses what chance brings more often than once in e^20 draws, half a billion.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from course_utils.exercises.running import Unreadable

_RARE = 20.0  # minus the logarithm of the chance that a check may take for none


def drawn(initialize: Callable[[torch.Generator], Sequence[Tensor]]) -> list[Tensor]:
    """Return weights as initialize(generator) leaves them, for a generator of seed 1.

    Raises: Unreadable unless equal states give equal weights, a later state of one seed others throughout,
    and the generator has moved on.
    """
    generators = [torch.Generator().manual_seed(1) for _ in range(3)]
    torch.rand(1, generator=generators[-1])
    state = generators[0].get_state()
    first, again, other = ([*initialize(generator)] for generator in generators)
    if not all(map(torch.equal, first, again)):
        raise Unreadable("two generators of one seed give different weights: draw from `generator`")
    if any(map(torch.equal, first, other)):
        raise Unreadable("a later state of `generator` gives the same weights: draw from it, without a seed")
    if generators[0].get_state().equal(state):
        raise Unreadable("`generator` has not moved on: draw from it, and not from a copy")
    for one, two in zip(first, other, strict=True):
        kept = (one.abs() == two.abs())[one != 0].float().mean()
        if kept > 0.01 or torch.equal(one.abs().flatten().sort().values, two.abs().flatten().sort().values):
            raise Unreadable("a part of the numbers does not come from `generator`: draw all of them from it")
    return first


def check_law(weights: Sequence[Tensor], kurtosis: float = 3.0) -> None:
    """Check that weights are drawn independently from N(0, σ²), or U(-b, b) if `kurtosis` is 1.8.

    Each tensor, of two dimensions or more, may have its own σ. Raises: Unreadable with what is wrong.
    """
    check_independence(weights)
    sizes = torch.cat([_normalized(w).flatten() for w in weights]).abs()
    # Of pairs that agree to 1e-3 a thousandth agree to 1e-6, unless there are copies.
    close = sizes.div(1e-3).long().bincount()
    equal = sizes.div(1e-6).round().unique(return_counts=True)[1]
    by_chance, found = (close * (close - 1)).sum() / 2000, (equal * (equal - 1)).sum() / 2
    if found > by_chance + 7 * by_chance.sqrt() + 3:
        raise Unreadable("weights are copies of others, of one value, or rounded: draw each for itself")
    for w in weights:
        check_mean(w)
        check_entries(w, kurtosis)
        _check_scatter(_normalized(w), "rows", kurtosis)
        _check_scatter(_normalized(w).T, "columns", kurtosis)
    if kurtosis == 3.0:
        _check_largest(sizes)


def check_mean(weight: Tensor) -> None:
    """Check that the mean of a weight is 0. Raises: Unreadable if not."""
    z = _normalized(weight)
    mean = z.mean().item()
    if mean**2 * z.numel() / 2 > _RARE:
        raise Unreadable(f"the mean of the weights is not 0, but {mean:.2g} of their RMS")


def check_entries(weight: Tensor, kurtosis: float = 3.0) -> None:
    """Check that the entries of a weight, all together, look like a sample of that law.

    Raises: Unreadable with what is wrong.
    """
    z = _normalized(weight).flatten()
    count, found = len(z), z.pow(4).mean().item()
    if (found - kurtosis) ** 2 * count / 48 > _RARE:
        raise Unreadable(f"the weights follow another law: E w⁴/(E w²)² is {found:.2f}, not {kurtosis:g}")
    ordered = z.sort().values
    share = torch.special.ndtr(ordered) if kurtosis == 3.0 else (ordered / 12**0.5 + 0.5).clamp(0, 1)
    place = (torch.arange(count) + 0.5) / count
    if 2 * count * (share - place).abs().max() ** 2 > _RARE:
        name = "normal" if kurtosis == 3.0 else "uniform"
        raise Unreadable(f"the weights follow another law: their histogram is not that of a {name} one")


def check_independence(weights: Sequence[Tensor]) -> None:
    """Check that no row, column or weight is a multiple of another one, also with noise.

    Raises: Unreadable with what is wrong.
    """
    tensors = [_normalized(w - w.mean()) for w in weights]  # whether the mean is 0 is another question
    for z in tensors:
        _check_lines(z, "rows")
        _check_lines(z.T, "columns")
    for a, b in combinations(tensors, 2):
        rows, columns = map(min, a.shape, b.shape)
        a, b = a[:rows, :columns], b[:rows, :columns]  # one may be a part of the other
        if (a * b).sum() ** 2 / a.numel() / 2 > _RARE:
            raise Unreadable("two of the weights depend on each other: draw each number for itself")


def _check_largest(sizes: Tensor) -> None:
    """Check that the largest of all |w| in units of their RMS is as large as normal numbers have it."""
    largest = sizes.max()
    if -len(sizes) * torch.special.ndtr(largest).mul(2).sub(1).log() > _RARE:
        raise Unreadable(f"the weights follow another law: they are cut off at {largest:.2g} times their RMS")


def _check_lines(lines: Tensor, name: str) -> None:
    """Check that no two lines, which are rows or columns, are alike."""
    count, length = lines.shape
    directions = nn.functional.normalize(lines)
    likest = (directions @ directions.T).triu(1).abs().max().item()
    if -(length - 1) / 2 * math.log(max(1 - likest**2, 1e-12)) > _RARE + math.log(count**2 / 2):
        raise Unreadable(
            f"two {name} of a weight depend on each other (cosine {likest:.2f}): draw each number for itself"
        )


def _check_scatter(lines: Tensor, name: str, kurtosis: float) -> None:
    """Check that neighbours, sums and mean squares of lines scatter as those of independent weights do."""
    count, length = lines.shape
    flat = lines.flatten()
    if (flat[1:] * flat[:-1]).sum() ** 2 / len(flat) / 2 > _RARE:
        raise Unreadable("neighbouring weights depend on each other: each is to be drawn for itself")
    sums = lines.sum(dim=1).square().mean().item() / length
    squares = lines.square().mean(dim=1).var().item() * length / (kurtosis - 1)
    for what, found, freedom in (("sums", sums, count), ("mean squares", squares, count - 1)):
        if freedom / 2 * (found - 1 - math.log(max(found, 1e-300))) > _RARE:  # Chernoff's bound for chi²
            raise Unreadable(
                f"the {what} of its {name} have {found:.2g} times the variance that independent weights "
                "give: each is to be drawn for itself, and by the same law"
            )


def _normalized(weight: Tensor) -> Tensor:
    """Return a weight as a matrix with one row for each output, of mean square 1."""
    return (weight.float() / weight.float().square().mean().sqrt()).flatten(1)


def filled(initializer: Callable, *shape: int) -> Tensor:
    """Return a tensor of this shape that was filled by initializer(tensor, generator).

    Raises: Unreadable if it is not filled in place, not finite or constant, and as `drawn`.
    """

    def fill(generator: torch.Generator) -> list[Tensor]:
        tensor = torch.full(shape, math.nan)
        initializer(tensor, generator)
        if tensor.isnan().all():
            raise Unreadable("the tensor is not filled in place: it still holds the nan that it held before")
        if not tensor.isfinite().all():
            raise Unreadable("the tensor holds numbers that are not finite")
        if tensor.numel() > 1 and tensor.min() == tensor.max():
            raise Unreadable(f"all weights are {tensor.min().item():g}")
        return [tensor]

    return drawn(fill)[0]


def in_place(change: Callable[..., object], model: nn.Module, *arguments: object) -> nn.Module:
    """Return the model that change(model, *arguments) has changed.

    Raises: Unreadable if it has other parameters than before, or the same numbers in all of them.
    """
    before = [*model.parameters()]
    numbers = [parameter.detach().clone() for parameter in before]
    change(model, *arguments)
    after = [*model.parameters()]
    if len(after) != len(before) or any(p is not q for p, q in zip(after, before, strict=True)):
        raise Unreadable("parameters were replaced by new ones: change those that are there, in place")
    if all(map(torch.equal, numbers, after)):
        raise Unreadable("no parameter has changed: change those of the model that you get, in place")
    return model
