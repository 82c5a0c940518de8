"""The fans of a call: how many inputs feed an output, and how many outputs an input feeds."""

import math
from typing import Any

from torch import Tensor

from course_utils.doctor.running import tensors_in
from course_utils.doctor.vocabulary import CONVOLUTIONS, PRODUCTS


def fans(call: Any, x: Tensor, weight: Tensor) -> tuple[float, float, int]:
    """Return fan_in, fan_out and the dimension of units in `weight`; of strides only fan_in takes account.

    call: an `Invocation` of a layer, with the input `x`.
    """
    if call.name == "einsum":
        return _einsum_fans(call.args, weight)
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


def _einsum_fans(args: tuple, weight: Tensor) -> tuple[int, int, int]:
    terms, result = args[0].replace(" ", "").replace(".", "").split("->")
    first, second = terms.split(",")
    own, other = (second, first) if list(tensors_in(args))[-1] is weight else (first, second)
    kept = [i for i, letter in enumerate(own) if letter in result and letter not in other]
    summed = [i for i, letter in enumerate(own) if letter not in result]
    fan_in, fan_out = (math.prod(weight.shape[i] for i in dims) for dims in (summed, kept))
    return fan_in, fan_out, min(kept, default=0)
