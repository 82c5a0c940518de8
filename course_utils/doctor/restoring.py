"""How a model is run that is afterwards what it was."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.doctor.measuring import is_fixed, tensors_in

_WHOLE = (type, FunctionType, MethodType, ModuleType, str, bytes, int, float, complex, bool, type(None))


@contextmanager
def restored(model: nn.Module, inputs: Any) -> Iterator[Callable[[], None]]:
    """Put back what a pass may change: values, attributes, random states, gradients (which are put aside).

    All that can be reached from the model's attributes through dictionaries, lists, sets and objects: what
    they hold, tensors with values, shapes, hooks and whether they require a gradient, arrays, generators.
    Yields what starts anew for another pass; tensors that say they are unchanged it does not look at.
    """
    held = list(_reached(model))
    tensors = [x for x in held if isinstance(x, Tensor)]
    used = {t.device.index for t in (*tensors, *tensors_in(inputs)) if t.is_cuda}
    generators = [torch.default_generator, *(torch.cuda.default_generators[index] for index in used)]
    undo = [action for x in (*generators, *held) for action in _undoing(x)]

    def put_back(every: bool) -> None:
        failures = []
        for action in undo:  # whatever fails, all else is put back
            try:
                action(every)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def start() -> None:
        put_back(every=False)
        for p in model.parameters():
            p.grad = None

    try:
        start()
        yield start
    finally:
        put_back(every=True)


def _reached(root: Any) -> Iterator[Any]:
    """Yield all that can be reached from an object through its attributes and containers, once each."""
    seen: dict[int, Any] = {}
    waiting = deque([root])
    while waiting:
        x = waiting.popleft()
        if id(x) in seen or isinstance(x, _WHOLE):
            continue
        seen[id(x)] = x
        yield x
        if isinstance(x, dict):
            waiting.extend(x.values())
        elif isinstance(x, list | tuple | set | frozenset | deque):
            waiting.extend(x)
        elif not isinstance(x, Tensor | np.ndarray) and isinstance(getattr(x, "__dict__", None), dict):
            waiting.append(vars(x))


def _undoing(x: Any) -> Iterator[Callable[[bool], Any]]:
    """Yield what has to be called to make an object what it is now."""
    if isinstance(x, torch.Generator):
        state = x.get_state()
        yield lambda _: x.set_state(state)
    elif isinstance(x, np.ndarray):
        values = x.copy()
        yield lambda _: np.copyto(x, values)
    elif isinstance(x, dict | set | list | deque):
        content, fill = x.copy(), x.extend if isinstance(x, list | deque) else x.update
        yield lambda _: (x.clear(), fill(content))
    elif isinstance(x, Tensor) and not x.is_meta:
        yield from _undoing_tensor(x)


def _undoing_tensor(x: Tensor) -> Iterator[Callable[[bool], Any]]:
    if x.is_leaf:
        gradient, required, hooks = x.grad, x.requires_grad, dict(x._backward_hooks or {})

        def put_back(_: bool) -> None:
            if x.requires_grad != required:
                x.requires_grad_(required)
            if x._backward_hooks:
                x._backward_hooks.clear()
                x._backward_hooks.update(hooks)
            x.grad = gradient

        yield put_back
    if not is_fixed(x):
        values, version = x.detach().clone(), None if x.is_inference() else x._version

        def write_back(every: bool) -> None:
            if x.shape != values.shape:
                x.data = values.clone()
            elif every or x.is_inference() or x._version != version:
                x.data.copy_(values)  # .data, lest a graph that waits for its backward pass take offence

        yield write_back
