"""What `diagnose` differentiates: a loss, or the output itself with an error that is drawn."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from course_utils.doctor.running import tensors_in


def objective(outputs: Any, targets: Any, loss: Callable | None) -> tuple[Tensor, Tensor | None, int]:
    """Return what to differentiate, the error to start from (None: a loss), and the number of classes, or 0."""
    output = next((y for y in tensors_in(outputs) if y.is_floating_point()), None)
    if loss is not None:
        logits, _ = _labelled(output, targets)
        return _given_loss(loss(outputs, targets)), None, 0 if logits is None else logits.shape[1]
    if output is None:
        raise TypeError(
            "the model must return a floating-point tensor, alone or in a tuple, list or dict; got "
            f"{type(outputs).__name__}: return one, or pass loss=..."
        )
    if targets is None:
        error = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        return output, error.to(output), 0
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets must be a tensor unless you pass loss=...; got {type(targets).__name__}")
    wide = output.to(torch.promote_types(output.dtype, torch.float32))
    if targets.is_floating_point():
        if targets.shape != output.shape:
            shapes = f"{tuple(output.shape)}; got {tuple(targets.shape)}"
            raise ValueError(f"floating-point targets must have the output's shape {shapes}")
        return mse_loss(wide, targets.to(torch.promote_types(targets.dtype, torch.float32))), None, 0
    logits, labels = _labelled(wide, targets)
    if logits is None:
        raise ValueError(
            "integer targets must have the output's shape without its dimension of classes (1, or the last); "
            f"got targets {tuple(targets.shape)} for an output {tuple(output.shape)}"
        )
    return cross_entropy(logits, labels), None, logits.shape[1]


def _given_loss(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss(outputs, targets) must return a tensor with one entry; got {got}")
    return value.reshape(())


def _labelled(output: Tensor | None, targets: Any) -> tuple[Tensor | None, Tensor | None]:
    """Return the logits, with classes in dimension 1, and the labels, if the targets are labels that fit."""
    if output is None or not isinstance(targets, Tensor) or targets.is_floating_point():
        return None, None
    if output.ndim > 2 and output.shape[:-1] == targets.shape:
        output, targets = output.flatten(0, -2), targets.flatten()
    if output.ndim > 1 and output.shape[:1] + output.shape[2:] == targets.shape:
        return output, targets.long()
    return None, None
