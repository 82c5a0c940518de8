"""One short training loop for classifiers, with a tidy history and a progress bar."""

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.auto import tqdm as auto_tqdm
from tqdm.notebook import tqdm_notebook


def progress_bar(total: int, description: str) -> tqdm:
    """Return a bar for `total` steps that vanishes when it is closed: `with progress_bar(...) as bar`.

    In a notebook it is a widget without a text form, so that a stored output holds no trace of it.
    """
    if not issubclass(auto_tqdm, tqdm_notebook):
        return auto_tqdm(total=total, desc=description, leave=False)
    bar = auto_tqdm(total=total, desc=description, leave=False, display=False)
    display(bar.container._repr_mimebundle_() | {"text/plain": ""}, raw=True)
    return bar


def _per_network(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and accuracy, each (networks,), of logits ([networks,] batch, classes)."""
    if logits.ndim not in (2, 3) or logits.shape[-2] != len(labels):
        wanted = f"logits of shape ([networks,] batch, classes) for {len(labels)} labels"
        raise ValueError(f"expected {wanted}; got {tuple(logits.shape)}")
    logits = logits.unsqueeze(0) if logits.ndim == 2 else logits
    target = labels.expand(logits.shape[:-1])
    # Else cross-entropy would silently leave out the label -100.
    options = {"reduction": "none", "ignore_index": torch.iinfo(torch.int64).min}
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), **options)
    loss = loss.view(target.shape).mean(dim=1)
    accuracy = (logits.argmax(dim=-1) == target).double().mean(dim=1)
    return loss, accuracy.where(loss.isfinite(), torch.nan)  # without a loss, predictions mean nothing


def _history(losses: list[Tensor], accuracies: list[Tensor]) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([range(len(losses)), range(len(losses[0]))], names=["step", "network"])
    loss, accuracy = torch.cat(losses).double().cpu().numpy(), torch.cat(accuracies).cpu().numpy()
    return pd.DataFrame({"loss": loss, "accuracy": accuracy}, index).reset_index()


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch_size: int = 64,
    generator: torch.Generator,
    progress: tqdm | None = None,
) -> pd.DataFrame:
    """Train `model` by cross-entropy for `steps` batches drawn with replacement, and return its history.

    model: maps inputs (batch, ...) to logits (batch, classes), or (networks, batch, classes) as an `Ensemble`
    does: the networks then see the same batches, and each follows the gradient of its own loss.
    inputs: (images, ...); labels: (images,) of integers. progress: a bar from `progress_bar`, advanced once a
    step. Calling again with the same optimizer goes on where this call ended.
    Returns: one row per step and network: `step` (from 0), `network`, `loss` (in nats) and `accuracy`, both
    on the step's batch before the update. A network that diverges has loss and accuracy nan from there on.
    Raises: ValueError if inputs and labels differ in number, they, steps or batch_size are below 1, or the
    logits have another shape.
    """
    if len(inputs) != len(labels) or not len(labels) or steps < 1 or batch_size < 1:
        got = f"{len(inputs)} inputs, {len(labels)} labels, {steps=}, {batch_size=}"
        raise ValueError(f"expected as many inputs as labels, steps and batch_size, all >= 1; got {got}")
    losses, accuracies = [], []
    for _ in range(steps):
        batch = torch.randint(len(labels), (batch_size,), generator=generator)
        loss, accuracy = _per_network(model(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        losses.append(loss.detach())
        accuracies.append(accuracy)
        if progress is not None:
            progress.update()
    return _history(losses, accuracies)


@torch.no_grad()
def evaluate(model: nn.Module, inputs: Tensor, labels: Tensor) -> pd.DataFrame:
    """Return `network`, `loss` (nats) and `accuracy` on all `inputs` (images, ...), one row per network.

    A network with a loss that is not finite has accuracy nan.
    Raises: ValueError if the logits have another shape than (images, classes) or (networks, images, classes).
    """
    loss, accuracy = _per_network(model(inputs), labels)
    return _history([loss], [accuracy]).drop(columns="step")


def final_losses(history: pd.DataFrame) -> NDArray:
    """Return each network's mean loss over the last ten steps of a history, inf where one of them is nan."""
    end = history[history.step > history.step.max() - 10]
    return end.groupby("network").loss.mean(skipna=False).fillna(np.inf).to_numpy()
