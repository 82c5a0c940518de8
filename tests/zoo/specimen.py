"""What a specimen of the zoo is: how to build it, what it is trained on, and what may be done to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Planted:
    """A fault, and the layers of which at least one has to be named (the beginnings of their names)."""

    name: str
    plant: Callable[[nn.Module], Any]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Specimen:
    """An architecture.

    build: () -> (model, inputs, targets, loss or None), the same after each `torch.manual_seed`.
    classes: K, if the loss of equal probabilities is ln K.
    """

    name: str
    build: Callable[[], tuple[nn.Module, Any, Any, Callable[..., Tensor] | None]]
    faults: tuple[Planted, Planted, Planted]
    classes: int = 0


def scaled(name: str, factor: float) -> Callable[[nn.Module], Any]:
    """Return what multiplies a parameter."""
    return torch.no_grad()(lambda model: model.get_parameter(name).mul_(factor))


def filled(name: str, value: float) -> Callable[[nn.Module], Any]:
    """Return what sets a parameter to a number."""
    return torch.no_grad()(lambda model: model.get_parameter(name).fill_(value))
