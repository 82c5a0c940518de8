"""One batch of each kind for the models of the zoo: text, images and sounds that come with the course."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

TEXT = Path(__file__).parents[2] / "LICENSE"  # ASCII that hardly ever changes
VOCABULARY, CLASSES, BATCH, LENGTH, RATE = 128, 10, 8, 24, 16_000
MASK = 3  # a token that no text has, as 0 to 2, which stand for padding, begin and end


@dataclass(frozen=True)
class Batch:
    """What `diagnose` is given beside the model."""

    inputs: Any
    targets: Any = None
    loss: Callable[[Any, Any], Tensor] | None = None

    def cost(self, outputs: Any) -> Tensor:
        """Return the loss of the model's outputs."""
        if self.loss is None:
            return cross_entropy(outputs, self.targets)
        return self.loss(outputs, self.targets)


@dataclass(frozen=True)
class Entry:
    """A model of the zoo: how to build it, and its batch."""

    library: str
    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], Batch]


Entries = Iterator[Entry]


def tokens(part: int = 0) -> Tensor:
    """Return lines of text, each one token longer than what a model reads."""
    characters = TEXT.read_bytes()[part * BATCH * LENGTH :][: BATCH * LENGTH + 1]
    return torch.tensor(list(characters)).unfold(0, LENGTH + 1, LENGTH)


def logit_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Return the cross entropy of an output object's logits, classes last."""
    return cross_entropy(outputs.logits.flatten(0, -2), targets.flatten())


def own_loss(outputs: Any, _: Any) -> Tensor:
    """Return the loss that the model computed from labels among its inputs."""
    return outputs.loss


def next_token() -> Batch:
    """Return text, and the token that comes next at each place."""
    lines = tokens()
    return Batch({"input_ids": lines[:, :-1]}, lines[:, 1:], logit_loss)


def hidden_token() -> Batch:
    """Return text with every sixth token hidden, to be guessed."""
    lines, hidden = tokens()[:, :-1], torch.arange(LENGTH) % 6 == 2
    inputs = {"input_ids": torch.where(hidden, MASK, lines), "attention_mask": torch.ones_like(lines)}
    return Batch(inputs, torch.where(hidden, lines, -100), logit_loss)


def translation() -> Batch:
    """Return a text to read, one to write, and its next tokens."""
    source, lines = tokens(1)[:, :-1], tokens()
    return Batch({"input_ids": source, "decoder_input_ids": lines[:, :-1]}, lines[:, 1:], logit_loss)


@cache
def _digits(size: int) -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels[:BATCH]).float().view(-1, 1, 8, 8)
    images = interpolate(images, size=(size, size), mode="bilinear").expand(-1, 3, -1, -1)
    return (images - images.mean()) / images.std(), torch.from_numpy(labels[:BATCH])


def digits(size: int, name: str = "", loss: Callable | None = None) -> Batch:
    """Return standardized images of digits, as an argument of that name, and which digits they show."""
    images, labels = _digits(size)
    return Batch({name: images} if name else images, labels, loss)


def tones(samples: int = 2000) -> Batch:
    """Return notes with some noise, and which of the notes it is."""
    labels = torch.arange(BATCH) % CLASSES
    times, generator = torch.arange(samples) / RATE, torch.Generator().manual_seed(0)
    waves = torch.sin(2 * torch.pi * 220 * 2 ** (labels[:, None] / 4) * times)
    waves = waves + 0.1 * torch.randn(waves.shape, generator=generator)
    return Batch({"input_values": waves / waves.std()}, labels, logit_loss)
