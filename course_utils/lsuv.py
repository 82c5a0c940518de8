"""LSUV: orthogonal weights, scaled layer by layer on one batch of data."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.initializers import Rng, orthogonal_

_LINEAR_MAPS = (nn.Linear, nn.modules.conv._ConvNd)


@torch.no_grad()
def lsuv_(
    model: nn.Module,
    inputs: Any,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 10,
    generator: Rng = None,
) -> dict[str, float]:
    """Give all linear and convolutional layers orthogonal weights, scaled until their outputs have std 1.

    inputs: one batch, `model(inputs)`; a tuple or list for `model(*inputs)`, a mapping for `model(**inputs)`.
    One forward pass: each layer, at its first call, gets an orthogonal weight, which is divided by the std of
    the layer's output, over batch and units, until |std - 1| <= tolerance; then the signal goes on. Biases
    are kept, and are why one division may not do. Buffers, as batch norm's running statistics, are put back.
    Returns: the factor on each layer's orthogonal weight, by name, in the order of the calls.
    Trap: it sets the size of the signal at one moment: neither its angles nor the gradients.
    Raises: ValueError naming the layer if its output is constant or not finite, or if `max_iterations`
    divisions do not bring the std to 1; ValueError for lazy or parametrized layers, for one that is tied to
    what is no such layer (tied layers are scaled at the first call), or if no layer is called.
    Source: Mishkin and Matas 2016, "All you need is a good init", algorithm 1.
    """
    layers = _linear_maps(model)
    if not (tolerance > 0 and max_iterations >= 0):
        raise ValueError(f"expected tolerance > 0 and max_iterations >= 0; got {tolerance}, {max_iterations}")
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if not nn.parameter.is_lazy(buffer)]
    parameters = [(p, p.clone()) for p in model.parameters() if not nn.parameter.is_lazy(p)]
    factors: dict[str, float] = {}
    settled: set[int] = set()

    def scale(layer: nn.Module, args: tuple, keywords: dict, output: Tensor) -> Tensor | None:
        if layer.weight.data_ptr() in settled:
            return None  # called again, by this layer or one that it is tied to
        settled.add(layer.weight.data_ptr())
        orthogonal_(layer.weight, generator=generator)
        forward = partial(layer.forward, *args, **keywords)
        name = layers[layer] or type(layer).__name__
        output, factors[layers[layer]] = _unit_std(forward, layer.weight, name, tolerance, max_iterations)
        return output

    hooks = [layer.register_forward_hook(scale, with_kwargs=True) for layer in layers]
    try:
        args, keywords = _arguments(inputs)
        model(*args, **keywords)
        if not factors:
            raise ValueError(f"no linear or convolutional layer of {type(model).__name__} was called")
    except BaseException:
        _put_back(parameters)
        raise
    finally:
        for hook in hooks:
            hook.remove()
        _put_back(buffers)
    return factors


def _linear_maps(model: nn.Module) -> dict[nn.Module, str]:
    """Return the linear and convolutional layers and their names, if all have weights that can be scaled."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    layers = {module: name for name, module in model.named_modules() if isinstance(module, _LINEAR_MAPS)}
    others = [(name, m) for name, m in model.named_modules() if not isinstance(m, _LINEAR_MAPS)]
    owners = {id(p): f"{name}.{own}".strip(".") for name, m in others for own, p in m._parameters.items()}
    for layer, name in layers.items():
        if nn.parameter.is_lazy(layer.weight):
            raise ValueError(f"{name}.weight has no shape yet; run the model once on a batch first")
        if "weight" not in layer._parameters:
            raise ValueError(f"{name}.weight is parametrized: it is computed anew in each call")
        if id(layer.weight) in owners:
            raise ValueError(f"{name}.weight is tied to {owners[id(layer.weight)]}: scaling it changes both")
    return layers


def _put_back(kept: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write the values back to what has changed; an expanded tensor has not, and cannot be written to."""
    for tensor, values in kept:
        if tensor.layout != torch.strided or not torch.equal(tensor, values):
            tensor.copy_(values)


def _arguments(inputs: Any) -> tuple[Sequence, Mapping]:
    """Return the positional and the keyword arguments that `inputs` stands for."""
    if isinstance(inputs, Mapping):
        return (), inputs
    return (inputs if isinstance(inputs, tuple | list) else (inputs,)), {}


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
