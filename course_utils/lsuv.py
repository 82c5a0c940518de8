"""LSUV: orthogonal weights, scaled layer by layer on one batch of data."""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.initializers import Rng, orthogonal_

_LINEAR_MAPS = (nn.Linear, nn.modules.conv._ConvNd)


@torch.no_grad()
def lsuv_(
    model: nn.Module, *inputs: Any, tolerance: float = 1e-3, max_iterations: int = 10, generator: Rng = None
) -> dict[str, float]:
    """Give all linear and convolutional layers orthogonal weights, scaled until their outputs have std 1.

    inputs: one batch, that is what the model takes: `model(*inputs)`.
    One forward pass: each layer, at its first call, gets an orthogonal weight, which is divided by the std of
    the layer's output, over batch and units, until |std - 1| <= tolerance; then the signal goes on. Biases
    are kept, and are why one division may not do; so are frozen weights (`requires_grad` False). The pass
    runs through a copy, and the weights are written at the end: nothing else in the model changes, and
    nothing at all if an error is raised.
    Returns: the factor on each layer's orthogonal weight, by name, in the order of the calls.
    Trap: it sets the size of the signal at one moment: neither its angles nor the gradients.
    Raises: ValueError naming the layer if its output is constant or not finite, or if `max_iterations`
    divisions do not bring the std to 1; ValueError for a weight that is parametrized or tied to what is no
    such layer (tied layers are scaled at the first call), or if no layer is called.
    Source: Mishkin and Matas 2016, "All you need is a good init", algorithm 1.
    """
    trial, settled = copy.deepcopy(model), set()
    factors: dict[str, float] = {}

    def scale(name: str, layer: nn.Module, args: tuple, keywords: dict, output: Tensor) -> Tensor:
        if layer.weight not in settled:  # else it was called before, or one that it is tied to
            settled.add(layer.weight)
            orthogonal_(layer.weight, generator=generator)
            forward, shown = partial(layer.forward, *args, **keywords), name or type(layer).__name__
            output, factors[name] = _unit_std(forward, layer.weight, shown, tolerance, max_iterations)
        return output

    for name, layer in _linear_maps(trial):
        if layer.weight.requires_grad:
            layer.register_forward_hook(partial(scale, name), with_kwargs=True)
    trial(*inputs)
    if not factors:
        raise ValueError(f"no linear or convolutional layer of {type(model).__name__} was called that learns")
    for name in factors:
        model.get_submodule(name).weight.copy_(trial.get_submodule(name).weight)
    return factors


def _linear_maps(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the linear and convolutional layers by name, each with a weight of its own."""
    others = [module for module in model.modules() if not isinstance(module, _LINEAR_MAPS)]
    elsewhere = {id(parameter) for module in others for parameter in module._parameters.values()}
    for name, layer in model.named_modules():
        if isinstance(layer, _LINEAR_MAPS):
            # To be asked first: looking at a weight that is computed may change what it is computed from.
            if "weight" not in layer._parameters or id(layer.weight) in elsewhere:
                raise ValueError(f"{name}.weight is parametrized, or tied to another kind of layer")
            yield name, layer


def _unit_std(
    forward: Callable[[], Tensor], weight: Tensor, name: str, tolerance: float, max_iterations: int
) -> tuple[Tensor, float]:
    """Divide a layer's weight by its output's std until that is 1; return the output and the factor."""
    factor = 1.0
    for _ in range(max_iterations + 1):
        output = forward()
        std = output.double().std(correction=0).item()
        if abs(std - 1) <= tolerance:
            return output, factor
        if not 0 < std < math.inf:
            raise ValueError(f"{name} cannot be scaled: its output has std {std:g} on these inputs")
        weight.div_(std)
        torch.clear_autocast_cache()  # it holds the weight in half precision
        factor /= std
    raise ValueError(
        f"{name} cannot be scaled: after {max_iterations} divisions its output has std {std:.4g}, not 1 +- "
        f"{tolerance:g}; biases that are too spread keep it up, half precision keeps it coarse"
    )
