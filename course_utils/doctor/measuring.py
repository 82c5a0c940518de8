"""What is measured on tensors, and what the doctor takes for a model and its inputs."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course_utils.doctor.vocabulary import CONVOLUTIONS, PRODUCTS

NAN = math.nan


class Moments(NamedTuple):
    """A tensor's mean, its second moment, and the part of that which varies over the batch."""

    mean: float
    second: float
    varying: float


UNKNOWN = Moments(NAN, NAN, NAN)


def second_moment(x: Tensor) -> float:
    """Return the mean square, right from 1e-150 to 1e150; NaN of an empty tensor."""
    numel, x = x.numel() or NAN, x.detach()
    if x.is_sparse or x.is_sparse_csr:
        x = (x.coalesce() if x.is_sparse else x).values()
    norm = torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32)).item()
    if not 1e-12 < norm / math.sqrt(numel) < 1e12:  # float64 is ten times slower
        norm = torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float64)).item()
    return norm**2 / numel


def largest(x: Tensor) -> float:
    """Return the largest absolute value, NaN if there is one or no value at all."""
    if not x.numel():
        return NAN
    x = x.detach()  # on a CPU `aminmax` is ten times as fast as a norm
    return max(map(abs, torch.stack(torch.aminmax(x.abs() if x.is_complex() else x)).tolist()))


def moments(x: Tensor, batch_dim: int) -> Moments:
    """Return the moments of a tensor, those of a scalar as if it were a batch of one."""
    if not x.numel():
        return UNKNOWN
    x = (x.detach() if x.ndim else x.detach()[None]).double()
    mean = x.mean(batch_dim)
    constant = mean.square().mean()
    varying = (x.square().mean() - constant).clamp_(min=0)  # rounding may leave -1e-16
    return Moments(*torch.stack([mean.mean(), constant + varying, varying]).tolist())


def has_identical_units(weight: Tensor, bias: Tensor | None, out_dim: int, groups: int = 1) -> bool:
    """Return whether all units, along `out_dim`, have the weights and biases of the others in their group."""
    values = [torch.atleast_1d(weight.detach()).movedim(out_dim, 0)] + ([] if bias is None else [bias])
    units, *biases = (torch.atleast_1d(x).unflatten(0, (groups, -1)).movedim(1, 0) for x in values)
    same = len(units) > 1 and torch.equal(units[0], units[1]) and bool((units == units[:1]).all())
    return same and all(bool((b == b[:1]).all()) for b in biases)


def copied_units(weight: Tensor, gradient: Tensor, out_dim: int) -> int:
    """Return how many units have the weights of another one, and its gradient, both not all 0."""
    units, slopes = (torch.atleast_1d(x.detach()).movedim(out_dim, 0).flatten(1) for x in (weight, gradient))
    _, alike, count = units[:, 0].unique(return_inverse=True, return_counts=True)
    some = (count[alike] > 1).nonzero()[:, 0]  # few, of a random weight, so that what follows is quick
    some = some[(units[some] != 0).any(1) & (slopes[some] != 0).any(1)]
    groups = units[some].unique(dim=0, return_inverse=True)[1].tolist() if len(some) else []
    first: dict[int, int] = {}
    pairs = [(i, first.setdefault(group, i)) for i, group in zip(some.tolist(), groups, strict=True)]
    return sum(i != j and torch.allclose(slopes[i], slopes[j], 1e-4, 0) for i, j in pairs)


def is_orthogonal(weight: Tensor) -> bool:
    """Return whether eight of the rows, or of the columns if these are fewer, are orthogonal."""
    matrix = torch.atleast_2d(weight.detach()).flatten(1)
    matrix = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)[:8].double()
    products = matrix @ matrix.T
    return len(matrix) > 1 and bool(products.fill_diagonal_(0).abs().max() < 1e-4 * matrix[0] @ matrix[0])


def owned(module: nn.Module) -> list[Tensor]:
    """Return the parameters of a module, and those that its weights are computed from."""
    parametrized = nn.utils.parametrize.is_parametrized(module)
    more = module.parametrizations.parameters() if parametrized else ()
    return [p for p in (*module._parameters.values(), *more) if p is not None]


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and mappings, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, Mapping):
        yield from tensors_in([*values.values()])


def first_floating(values: Any) -> Tensor | None:
    """Return the first floating-point tensor among the values: what counts as the output."""
    return next((x for x in tensors_in(values) if x.is_floating_point()), None)


def decided(p: Tensor) -> float:
    """Return the share of its slope that a softmax has lost: 0 if all is equal, 1 if each is 0 or 1."""
    p = p.detach()[:8]
    dim = next((dim for dim in {p.ndim - 1, 1} if is_probability(p, dim)), None)
    if dim is None:  # something else
        return 0.0
    return 1 - (1 - p.double().square().sum(dim).mean().item()) / (1 - 1 / p.shape[dim])


def is_share(x: Tensor) -> bool:
    """Return whether all numbers lie from 0 to 1."""
    return bool(((x >= 0) & (x <= 1)).all())


def is_probability(p: Tensor, dim: int) -> bool:
    """Return whether the numbers along a dimension are never negative, and add up to 1 but for rounding."""
    some, error = p.shape[dim] > 1 and p.numel() > 0, max(1e-3, torch.finfo(p.dtype).eps)
    return some and bool((p >= 0).all()) and bool(((p.double().sum(dim) - 1).abs() < error).all())


def is_fixed(x: Tensor) -> bool:
    """Return whether a tensor cannot be written to: expanded, or made in inference mode, outside of it."""
    sealed = x.is_inference() and not torch.is_inference_mode_enabled()
    steps = zip(x.shape, x.stride(), strict=True) if x.layout == torch.strided else ()
    return sealed or any(n > 1 and not step for n, step in steps)


def fans(call: Any, x: Tensor, weight: Tensor) -> tuple[float, float, int]:
    """Return fan_in, fan_out and the dimension of units in `weight`; of strides only fan_in takes account."""
    if call.name == "einsum":
        return _fans_of_einsum(call, x, weight)
    if call.name in PRODUCTS:
        right = list(tensors_in((call.args, call.keywords)))[-1] is weight
        return (*weight.shape[-2:], weight.ndim - 1) if right else (*weight.shape[:-3:-1], weight.ndim - 2)
    if call.name not in CONVOLUTIONS:
        return math.prod(weight.shape[1:]), weight.shape[0], 0
    n, (first, second, *kernel) = weight.ndim - 2, weight.shape
    if "transpose" not in call.name:
        return second * math.prod(kernel), first * second // x.shape[-1 - n] * math.prod(kernel), 0
    stride = call.argument("stride", 3) or 1
    strides = stride if isinstance(stride, tuple | list) else (stride,) * n
    reached = math.prod(max(k / s, 1) for k, s in zip(kernel, strides, strict=True))
    return first * second // call.output.shape[-1 - n] * reached, second * math.prod(kernel), 1


@torch.no_grad()
def _fans_of_einsum(call: Any, x: Tensor, weight: Tensor) -> tuple[float, float, int]:
    """Return the fans by counting products of ones, and the last dimension of the weight that x lacks."""
    pair = list(tensors_in((call.args, call.keywords)))
    ones = call.func(call.args[0], *(torch.ones_like(t, dtype=torch.float32) for t in pair))
    terms = call.args[0].replace(" ", "").replace("...", "").partition("->")[0].split(",")
    own, others = (terms if pair[0] is weight else terms[::-1])[:2]
    fan_in = ones.mean().item()
    units = [i for i, letter in enumerate(own) if letter not in others]
    return fan_in, fan_in * ones.numel() / x.numel(), units[-1] if units and len(own) == weight.ndim else 0


@torch.no_grad()
def seen(call: Any, x: Tensor, weight: Tensor) -> float:
    """Return how many inputs a convolution's outputs see on average: at borders fewer than fan_in."""
    image = x[:1] if x.ndim == weight.ndim else x  # else there is no batch
    options = {k: v for k, v in call.keywords.items() if k not in ("input", "weight", "bias")}
    ones = torch.ones_like(image, device="cpu"), torch.ones_like(weight, device="cpu")
    return call.func(*(v.float() for v in ones), None, *call.args[3:], **options).mean().item()


def mapped(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """Return nested tuples, lists and mappings with a function of each tensor in its place."""
    if isinstance(values, Mapping):
        return {key: mapped(function, value) for key, value in values.items()}
    if isinstance(values, tuple | list):
        items = [mapped(function, value) for value in values]
        return type(values)(*items) if hasattr(values, "_fields") else type(values)(items)
    return function(values) if isinstance(values, Tensor) else values


def cloned(values: Any, differentiable: bool) -> tuple[Any, list[Tensor]]:
    """Return the inputs with every tensor cloned, and the floating ones as leaves if they are to be."""
    leaves: list[Tensor] = []

    def copied(value: Tensor) -> Tensor:
        copy = value.detach().clone()
        if not (value.is_floating_point() and (value.requires_grad or differentiable)):
            return copy
        leaves.append(copy.requires_grad_())
        return copy.clone()  # may be changed in place, unlike a leaf

    return mapped(copied, values), leaves


def check_can_run(model: nn.Module, inputs: Any) -> None:
    """Refuse what a Recorder cannot run: no module, a compiled one, one without values, no inputs."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl for m in model.modules())
    if compiled or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"pass the model before it is compiled or scripted; got {type(model).__name__}")
    if not isinstance(inputs, Tensor | tuple | list | Mapping):
        kinds = "a tensor, a tuple or list of positional arguments, or a dict of keyword ones"
        raise TypeError(f"inputs must be {kinds}; got {type(inputs).__name__}")
    shapes = [tuple(x.shape) for x in tensors_in(inputs)]
    if shapes and not any(map(math.prod, shapes)):
        raise ValueError(f"inputs must hold at least one example; got shape {shapes[0]}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"{name} has no shape yet; run the model once on a batch first")
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values; use model.to_empty")
