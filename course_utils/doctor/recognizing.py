"""What a call of torch does, told from its arguments and what it returned: an activation, or attention."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from course_utils import activations
from course_utils.doctor.measuring import is_probability, tensors_in


class Invocation(NamedTuple):
    """A function of torch with its arguments, what it returned, and the first floating tensor of that."""

    func: Callable
    name: str
    args: tuple
    keywords: dict
    result: Any
    output: Tensor | None

    def argument(self, name: str, place: int | None) -> Any:
        """Return an argument by its name, or else by its place; None if it was not given."""
        return self.keywords.get(name, dict(enumerate(self.args)).get(place))


def with_leaf(origin: WeakIdKeyDictionary, args: tuple) -> tuple:
    """Return a recurrent module's arguments with a sequence as a leaf, lest its gradient be lost."""
    if args[0].ndim != 3 or args[0].requires_grad:
        return args
    leaf = args[0].detach().requires_grad_()
    if args[0] in origin:
        origin[leaf] = origin[args[0]]
    return (leaf, *args[1:])


def probabilities(call: Invocation) -> tuple[Tensor | None, list[Tensor]]:
    """Return what may be probabilities, written out or in attention, too, and what they were made of."""
    if call.output is None or call.output.ndim < 2:
        return None, []
    if call.name == "scaled_dot_product_attention":
        return _of_fused(call), [call.argument(name, i) for i, name in enumerate(("query", "key"))]
    if call.name == "multi_head_attention_forward":
        more = {"need_weights": True, "average_attn_weights": False, "training": False}
        with torch.no_grad():
            return call.func(*call.args, **call.keywords | more)[1], [call.output]
    divided = call.name in ("softmax", "div", "truediv")
    return call.output, [next(tensors_in((call.args, call.keywords)))] if divided else []


def takes_probabilities(call: Invocation) -> bool:
    """Return whether a softmax takes numbers that add up to 1 already, along its own dimension."""
    x, dim = call.argument("input", 0), call.argument("dim", 1)
    known = call.name == "softmax" and isinstance(dim, int) and x.is_floating_point()
    return known and is_probability(x.detach(), dim)


def _of_fused(call: Invocation) -> Tensor:
    """Return the probabilities in fused attention, of the first example: what it makes of unit vectors."""
    q, k = (call.argument(name, place).detach() for place, name in enumerate(("query", "key")))
    first = slice(None) if q.ndim < 4 else slice(1)
    q, k, mask = q[first], k[first], call.argument("attn_mask", 3)
    mask = mask[first] if mask is not None and mask.ndim > 3 else mask
    units = torch.eye(k.shape[-2]).to(k).expand(*k.shape[:-1], -1)
    causal = bool(call.argument("is_causal", 5))
    options = {name: x for name, x in call.keywords.items() if name in ("scale", "enable_gqa")}
    with torch.no_grad():
        return call.func(q, k, units, mask, is_causal=causal, **options)


def as_function(call: Invocation) -> Callable[[Tensor], Tensor]:
    """Return an activation as a function of one tensor, with one slope where they differ."""
    if call.name == "prelu":
        return activations.leaky_relu(call.argument("weight", 1).mean(dtype=torch.float64).item()).function
    func, more = call.func, call.args[1:]  # not the call, which holds its output
    options = {key: value for key, value in call.keywords.items() if key != "input"}
    return lambda z: func(z.clone(), *more, **options)


def recognized(z: Tensor, output: Tensor) -> activations.Activation | None:
    """Return the activation that maps z to the output, if z has entries of either sign."""
    if z.shape != output.shape:
        return None
    step = z.numel() // 1000 | 1  # odd, lest it meet one unit only
    before, after = (x.detach().flatten()[::step].double() for x in (z, output))
    negative = before < 0
    if not negative.any() or negative.all():
        return None
    slope = (after[negative] / before[negative]).median().item()
    known = [activations.relu, activations.softsign, activations.silu]
    known += [activations.leaky_relu(slope)] if 0 < slope < 1 else []
    rounding = 8 * torch.finfo(output.dtype).eps
    return next((phi for phi in known if torch.allclose(phi(before), after, rounding, 0)), None)
