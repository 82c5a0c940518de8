"""Running a model that is afterwards what it was: checks, copies, restoring, gradients that are not kept."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.doctor.measuring import quick_second_moment


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


def check_model_and_inputs(model: nn.Module, inputs: Any) -> None:
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


def propagate_back(root: Tensor, error: Tensor | None, leaves: list[Tensor]) -> dict[int, float]:
    """Propagate back; return the second moments of the leaves' gradients by id, and keep no gradient."""
    if not leaves or not root.requires_grad:
        return {}
    gradients = torch.autograd.grad(root, leaves, error, allow_unused=True)
    pairs = zip(leaves, gradients, strict=True)
    return {id(leaf): quick_second_moment(g) for leaf, g in pairs if g is not None}
