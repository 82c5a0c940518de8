"""Which parameters still follow the law that torch gives to their module, found by drawing that law again."""

import copy
import math

import torch
from torch import Tensor, nn

_RESETS = "reset_parameters", "_reset_parameters"  # attention modules have the second


def described(x: Tensor) -> str:
    """Return a tensor's law in words and numbers."""
    x = x.detach().double()
    if not x.numel() or (x == x.flatten()[0]).all():
        return f"all {x.flatten()[0].item():.3g}" if x.numel() else "empty"
    mean, std, largest = (v.item() for v in (x.mean(), x.std(correction=0), x.abs().max()))
    return f"mean {mean:.2g}, std {std:.2g}, largest {largest:.2g}"


def fresh_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Return the module's own parameters as torch would draw them; empty if torch has no law for them."""
    reset = next((getattr(module, name) for name in _RESETS if hasattr(module, name)), None)
    if reset is None or not reset.__func__.__module__.startswith("torch.nn."):
        return {}
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        copied = copy.deepcopy(module)
        getattr(copied, reset.__name__)()
    return dict(copied.named_parameters(recurse=False))


def same_law(x: Tensor, fresh: Tensor) -> bool:
    """Return whether two draws may come from one law: constants are equal, or mean, size and shape agree.

    To four standard errors of the difference: of the mean, of the root mean square, and six of the fourth
    moment, whose law is skewed.
    """
    a, b = (values.detach().double().flatten() for values in (x, fresh))
    if x.shape != fresh.shape or not a.numel():
        return x.shape == fresh.shape
    constant = [bool((values == values[0]).all()) for values in (a, b)]
    if any(constant) and a.numel() > 1:
        return all(constant) and a[0].item() == b[0].item()
    size, error = b.square().mean().sqrt(), 4 * math.sqrt(2 / a.numel())
    if not abs(a.mean() - b.mean()) <= error * size:
        return False
    ratio = a.square().mean().sqrt() / size
    fourth = [values.pow(4).mean() / values.square().mean().square() for values in (a, b)]
    return bool(abs(ratio.log()) <= error and abs(fourth[0] - fourth[1]) <= 1.5 * error * math.sqrt(24))
