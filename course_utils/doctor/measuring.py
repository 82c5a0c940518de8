"""What is measured on tensors, and how a model is run that is afterwards what it was."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    return Moments(*torch.stack([mean.mean(), constant + varying, varying]).tolist())


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
    same = len(units) > 1 and torch.equal(units[0], units[1]) and bool((units == units[:1]).all())
    return same and (bias is None or bool((bias == bias[0]).all()))


def is_orthogonal(weight: Tensor) -> bool:
    """Return whether eight of the rows, or of the columns if these are fewer, are orthogonal."""
    if weight.ndim < 2:
        return False
    matrix = weight.detach().flatten(1)
    matrix = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)[:8].double()
    products = matrix @ matrix.T
    return len(matrix) > 1 and bool(products.fill_diagonal_(0).abs().max() < 1e-4 * matrix[0] @ matrix[0])


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(values, Tensor):
        yield values
        return
    if dataclasses.is_dataclass(values) and not isinstance(values, type | Mapping):
        values = vars(values)
    values = values.values() if isinstance(values, Mapping) else values
    for value in values if isinstance(values, Iterable) and not isinstance(values, str) else ():
        if isinstance(value, Tensor | tuple | list | Mapping) or dataclasses.is_dataclass(value):
            yield from tensors_in(value)


def is_expanded(x: Tensor) -> bool:
    """Return whether several elements of a tensor are one number in memory."""
    strided = x.layout == torch.strided
    return strided and any(size > 1 and not step for size, step in zip(x.shape, x.stride(), strict=True))


def fans(call: Any, x: Tensor, weight: Tensor) -> tuple[float, float, int]:
    """Return fan_in, fan_out and the dimension of units in `weight`; of strides only fan_in takes account."""
    right = list(tensors_in((call.args, call.keywords)))[-1] is weight
    if call.name == "einsum":
        terms, result = call.args[0].replace(" ", "").replace(".", "").split("->")
        other, own = terms.split(",") if right else reversed(terms.split(","))
        kept = [i for i, letter in enumerate(own) if letter in result and letter not in other]
        summed = [i for i, letter in enumerate(own) if letter not in result]
        fan_in, fan_out = (math.prod(weight.shape[i] for i in dims) for dims in (summed, kept))
        return fan_in, fan_out, min(kept, default=0)
    if call.name in PRODUCTS:
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


@contextmanager
def restored(model: nn.Module, inputs: Any) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Put everything back that a forward pass may change, and what is added to the list that is yielded.

    The list holds tensors and copies of their values. Gradients are put aside: a pass that propagates back
    makes its own.
    """
    modules = list(model.modules())
    containers = [vars(module) for module in modules]
    containers += [v for attributes in containers for v in attributes.values() if isinstance(v, dict | list)]
    contents = [(container, container.copy()) for container in containers]
    held = [t for m in modules for t in (*m._buffers.values(), *vars(m).values()) if isinstance(t, Tensor)]
    kept = {id(tensor): tensor for tensor in held}
    altered = [(tensor, tensor.detach().clone()) for tensor in kept.values()]
    gradients = [(p, p.grad) for p in model.parameters()]
    used = {t.device.index for t in (*model.parameters(), *kept.values(), *tensors_in(inputs)) if t.is_cuda}
    generators = [torch.default_generator, *(torch.cuda.default_generators[index] for index in used)]
    states = [generator.get_state() for generator in generators]
    try:
        for p, _ in gradients:
            p.grad = None
        yield altered
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        for p, gradient in gradients:
            p.grad = gradient
        for container, content in contents:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)
        for tensor, values in reversed(altered):
            if not is_expanded(tensor):  # what nothing can write to in place has not changed
                tensor.data.copy_(values)  # .data, lest a graph that waits for its backward pass take offence


def cloned(values: Any, differentiable: bool) -> tuple[Any, list[Tensor]]:
    """Return the inputs with every tensor cloned, and the floating ones as leaves if they are to be."""
    leaves: list[Tensor] = []

    def copied(value: Any) -> Any:
        if type(value) in (tuple, list):
            return type(value)(map(copied, value))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(copied, value))
        if isinstance(value, Mapping):
            return {key: copied(item) for key, item in value.items()}
        if not isinstance(value, Tensor):
            return value
        copy = value.detach().clone()
        if not (value.is_floating_point() and (value.requires_grad or differentiable)):
            return copy
        leaves.append(copy.requires_grad_())
        return copy.clone()  # may be changed in place, unlike a leaf

    return copied(values), leaves


def check_arguments(model: nn.Module, inputs: Any) -> None:
    """Refuse what a Recorder cannot run: no module, a compiled one, inputs that are none or empty."""
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
