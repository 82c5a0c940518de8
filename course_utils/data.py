"""What to train on: scikit-learn's digits, images in MNIST's IDX format from your disk, or points in a plane.

Nothing is downloaded. A file that cannot be used raises an error that names it, what was found (bytes are
counted after inflating), and what was expected.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """A labelled image set, split into training and test images, and standardized.

    Inputs are float32 of shape (images, pixels), labels int64 of shape (images,) from 0 to `classes` - 1;
    `shape` is (rows, columns) of one image. One mean and one std, those of all training pixels together,
    standardize both parts: training inputs have mean 0 and mean square 1 up to rounding, test inputs nearly.
    """

    name: str
    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    shape: tuple[int, int]
    classes: int


def digits() -> Images:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels: 1,437 to train, 360 to test.

    The split is always the same, and stratified: each digit has its share of both parts.
    Source: Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits, UCI repository.
    """
    # Imported here because that takes a second, which those who bring their own images need not wait.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    pixels, labels = data.images.astype(np.uint8), data.target  # whole numbers from 0 to 16
    parts = train_test_split(pixels, labels, test_size=360, stratify=labels, random_state=0)
    train, test, train_labels, test_labels = parts
    return _images("digits", train, train_labels, test, test_labels)


def moons(points: int, *, noise: float = 0.1, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return two half circles that reach into each other: float32 inputs (points, 2) and labels 0 and 1.

    Labels alternate. noise: std of the Gaussian noise on each coordinate, for half circles of radius 1.
    Afterwards both coordinates are centred and divided by their common std, so that the mean square is 1.
    """
    labels, angle = torch.arange(points) % 2, math.pi * torch.rand(points, generator=generator)
    side = 1.0 - 2 * labels
    x = side * torch.cos(angle) + labels
    y = side * torch.sin(angle) + labels / 2
    return _planar(x, y, noise, generator), labels


def circles(points: int, *, noise: float = 0.1, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a circle of radius 1 (label 0) around one of radius 0.5 (label 1); else as `moons`."""
    labels, angle = torch.arange(points) % 2, 2 * math.pi * torch.rand(points, generator=generator)
    radius = 1 - labels / 2
    return _planar(radius * torch.cos(angle), radius * torch.sin(angle), noise, generator), labels


def spirals(points: int, *, noise: float = 0.03, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return two arms that wind one and a half times around the origin, to radius 1; else as `moons`."""
    labels = torch.arange(points) % 2
    radius = 0.1 + 0.9 * torch.rand(points, generator=generator)
    angle = 3 * math.pi * radius + math.pi * labels
    return _planar(radius * torch.cos(angle), radius * torch.sin(angle), noise, generator), labels


def _planar(x: Tensor, y: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Return standardized points (points, 2) with noise of std `noise` on each coordinate."""
    if len(x) < 2:
        raise ValueError(f"expected at least 2 points, one of each class; got {len(x)}")
    inputs = torch.stack([x, y], dim=1)
    inputs = inputs + noise * torch.randn(inputs.shape, generator=generator)
    inputs = inputs - inputs.mean(dim=0)
    return inputs / inputs.square().mean().sqrt()


def idx_images(folder: str | PathLike[str]) -> Images:
    """Return MNIST, Fashion-MNIST or any other set of four IDX files in `folder`.

    They are train-images-idx3-ubyte, train-labels-idx1-ubyte, and the same with t10k for the test set; plain,
    or gzipped with .gz at the end (plain wins where both exist). "train-images.idx3-ubyte" will do as well.
    Raises: FileNotFoundError if a file is missing; ValueError for a file that `read_idx` refuses, and for
    images and labels swapped or of different counts.
    Source: LeCun, Cortes & Burges, The MNIST database; Xiao, Rasul & Vollgraf (2017), Fashion-MNIST.
    """
    folder = Path(folder).expanduser()
    arrays = []
    for part in ("train", "t10k"):
        images, labels = (_read(folder, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            wanted = "(images, rows, columns) and (images,)"
            got = f"{images.shape} and {labels.shape}"
            raise ValueError(f"{folder}: images and labels of {part} have shapes {got}; expected {wanted}")
        arrays += [images, labels]
    return _images(folder.resolve().name, *arrays)


def _read(folder: Path, name: str) -> NDArray[np.uint8]:
    paths = [path for path in folder.glob(name.replace("-idx", "[-.]idx") + "*") if path.is_file()]
    if not paths:
        wanted = f"it, or {name.replace('-idx', '.idx')}, or one of them with .gz at the end"
        raise FileNotFoundError(f"{folder}: found no file {name}; expected {wanted}")
    return read_idx(min(paths, key=lambda path: len(path.name)))  # plain before .gz


def read_idx(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes with 1 to 3 dimensions, plain or gzipped.

    The first bytes, not the name, tell whether it is gzipped.
    Raises: FileNotFoundError for no file; ValueError for a header that is none, a size other than the header
    announces, and a damaged gzip stream.
    Source: LeCun, Cortes & Burges, The MNIST database, "File formats".
    """
    path = Path(path).expanduser()
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: the gzip stream is damaged ({error}); expected a whole one") from error
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if not (1 <= dimensions <= 3 and len(content) >= start):
        wanted = "00 00 08, then 01, 02 or 03 for the dimensions, then 4 bytes for the size of each"
        raise ValueError(f"{path}: starts with the bytes {content[:16].hex(' ')}; expected {wanted}")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if len(content) != start + math.prod(shape):
        wanted = f"a header of {start} and {' x '.join(map(str, shape))} of data"
        raise ValueError(f"{path}: has {len(content)} bytes; expected {wanted}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _images(name: str, train: NDArray, train_labels: NDArray, test: NDArray, test_labels: NDArray) -> Images:
    mean, std = train.mean(), train.std()
    inputs = [torch.from_numpy(part).flatten(1).float().sub_(mean).div_(std) for part in (train, test)]
    labels = [torch.from_numpy(part).long() for part in (train_labels, test_labels)]
    classes = int(torch.cat(labels).max()) + 1
    return Images(name, inputs[0], labels[0], inputs[1], labels[1], train.shape[1:], classes)
