"""Calls that the core refuses, each for another reason, and what it says of them; texts.txt stores it."""

import contextlib
import gzip
import io
import math
import re
import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import torch
from measurements import drawn
from torch import nn

from course_utils import (
    activations,
    checks,
    comparison,
    data,
    frequency_laws,
    initializers,
    lsuv,
    mean_field,
    network_laws,
    networks,
    propagation,
    quadrature,
    sweeps,
    time_laws,
    training,
)
from course_utils.activations import Activation, linear, relu, sigmoid, tanh
from course_utils.comparison import Estimate

zero = Activation("zero", torch.zeros_like, torch.zeros_like)
near, far = Estimate(1.0, 0.1), Estimate(2.0, 0.1)


def without_gradient(z):
    if z.requires_grad:
        raise ValueError("no gradient here")
    return z


def half_(tensor):
    tensor[:1] = 1.0


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(*shape, dtype=dtype)


def scaled(layer, inputs, **options):
    return lsuv.lsuv_(nn.Sequential(layer), inputs, **options)


def spread_biases():
    layer = nn.Linear(1, 2)
    layer.bias.data = torch.tensor([-10.0, 10.0])
    return layer


def trained(inputs, labels, **options):
    model = nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters())
    training.train(model, optimizer, zeros(inputs, 2), torch.zeros(labels).long(), generator=None, **options)


CALLS = [
    lambda: activations.leaky_relu(math.nan),
    lambda: activations.from_function(without_gradient),
    lambda: checks.check_name("mode", "fan", {"fan_in": 1, "fan_out": 2}),
    lambda: checks.check_arguments(gain=-1.0),
    lambda: checks.check_arguments(depth=-1),
    lambda: checks.check_arguments(width=2.5),
    lambda: checks.check_arguments(count=0),
    lambda: checks.check_correlation(1.5),
    lambda: checks.check_element_wise(lambda z: z.missing),
    lambda: checks.check_element_wise(lambda z: z.float(), "float"),
    lambda: checks.check_element_wise(lambda z: [z], "brackets"),
    lambda: checks.check_element_wise(lambda z: 1 / torch.relu(z), "pole"),
    lambda: checks.check_element_wise(lambda z: z - z.mean(), "centred"),
    lambda: checks.check_element_wise(torch.Tensor.abs_, "in place"),
    lambda: comparison.mean_of([near, far]),
    lambda: comparison.mean_of(["1", "2"]),
    lambda: comparison.mean_of([]),
    lambda: comparison.mean_of([1.0, math.inf, math.nan]),
    lambda: comparison.root_mean_of([-1.0, -3.0]),
    lambda: comparison.std_of([0, 1, 0, 1]),
    lambda: comparison.compare(),
    lambda: comparison.compare("RMS"),
    lambda: comparison.compare(("RMS", 1.0, near, "much")),
    lambda: comparison.compare(("RMS", "1", near)),
    lambda: comparison.compare(("RMS", 1.0, Estimate(1.0, "0.1"))),
    lambda: comparison.compare(("RMS", 1.0, 2.0)),
    lambda: comparison.compare(("RMS", near, 2.0)),
    lambda: comparison.compare(("RMS", 1.0, far), ("mean", 1.0, near), ("std", 1.0, far)),
    lambda: comparison.refute(("RMS", 1.0, far), ("mean", 1.0, near)),
    lambda: comparison.verdict("it holds", [[1.0, 2.0, 3.0]]),
    lambda: comparison.verdict("it holds", [True, False, True]),
    lambda: data.moons(1, generator=None),
    lambda: frequency_laws.frequency_shares(9.0, "normal", 128),
    lambda: frequency_laws.fit_law([0.25] * 4, 2, 4, 0.5, 1),
    lambda: initializers.ones_([1.0]),
    lambda: initializers.eye_(zeros(2, 3, 4)),
    lambda: initializers.xavier_normal_(zeros(2), generator=None),
    lambda: initializers.dirac_(zeros(2, 3)),
    lambda: initializers.normal_(zeros(2, dtype=torch.int32), generator=None),
    lambda: initializers.normal_(zeros(2, dtype=torch.float16), mean=1.0, std=1e4, generator=None),
    lambda: initializers.lecun_normal_(zeros(2, 3), gain=-1.0, generator=None),
    lambda: initializers.calculate_gain("gelu"),
    lambda: initializers.kaiming_normal_(zeros(2, 3), mode="fan", generator=None),
    lambda: initializers.variance_scaling_(zeros(2, 3), distribution="log", generator=None),
    lambda: initializers.dirac_(zeros(4, 2, 3), groups=3),
    lambda: initializers.trunc_normal_(zeros(2, dtype=torch.float64), a=2.0, b=1.0, generator=None),
    lambda: initializers.delta_orthogonal_(zeros(2, 3, 5), generator=None),
    lambda: initializers.looks_linear_(zeros(4, 3), generator=None),
    lambda: initializers.sparse_(zeros(2, 3), sparsity=1.5, generator=None),
    lambda: initializers.output_prior_bias_(zeros(3, 2), [1, 0]),
    lambda: scaled(nn.ReLU(), zeros(2, 3)),
    lambda: scaled(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), zeros(2, 2)),
    lambda: scaled(nn.Linear(2, 3, bias=False), zeros(2, 2)),
    lambda: scaled(spread_biases(), zeros(2, 1), max_iterations=3),
    lambda: mean_field.correlation_map(zero, 0.5, 1.0, gain=2.0),
    lambda: mean_field.fixed_point(tanh, 0.0, 0.5),
    lambda: mean_field.fixed_points(linear, 1.0),
    lambda: mean_field.critical_point(sigmoid, [1.0, 60.0]),
    lambda: mean_field.crossing_layer(2.0, 0.5),
    lambda: mean_field.gain_behind(zero),
    lambda: mean_field.gain_in_front(tanh),
    lambda: network_laws.exact_log_growth(tanh, 1.0, 4),
    lambda: network_laws.log_length_law("uniform", 4),
    lambda: network_laws.he_variances([2, 3], "fan"),
    lambda: network_laws.norm_gradient_factors("group norm", 8, 2),
    lambda: time_laws.mean_memory(1, 3, 3, "uniform"),
    lambda: network_laws.pruned_normal("the largest", 0.5),
    lambda: networks.Ensemble(3, [2, 4, 5], relu, partial(half_)),
    lambda: networks.DeepChain(3, (2, 2, 4), relu, half_, readout=zeros(2, 2)),
    lambda: propagation.log_lengths("uniform", 4, 2, count=1, generator=None),
    lambda: propagation.residual_stream(1.0, "batch norm", []),
    lambda: quadrature.gaussian_expectation(lambda z: torch.ones(3)),
    lambda: quadrature.gaussian_expectation(torch.log),
    lambda: quadrature.gaussian_expectation(torch.exp, std=-1.0, mean=2.0),
    lambda: quadrature.pair_expectation(torch.exp, 0.5, 0.0, ()),
    lambda: quadrature.adaptive_expectation(lambda z: torch.sin(1e6 * z) ** 2),
    lambda: quadrature.adaptive_expectation(lambda z: torch.exp(z**2)),
    lambda: sweeps.sweep(drawn, {"gain": [[1.0]], "depth": [1]}, seeds=1),
    lambda: sweeps.sweep(drawn, {"gain": [1, 1.0], "depth": [1]}, seeds=2),
    lambda: sweeps.sweep(drawn, {"gain": 1.0, "depth": [1]}, seeds=1),
    lambda: sweeps.sweep(drawn, {"gain": [1], "error": [1]}, seeds=1),
    lambda: sweeps.sweep(partial(drawn, depth=1), {"gain": [1]}, seeds=1, file="new.jsonl"),
    lambda: training.evaluate(nn.Flatten(0), zeros(4, 1), torch.zeros(3).long()),
    lambda: trained(4, 3, steps=1),
    lambda: trained(4, 4, steps=0, batch_size=2),
]


def idx(*shape: int) -> bytes:
    """Return an IDX file of zeros."""
    return b"\0\0\x08" + struct.pack(f">B{len(shape)}I", len(shape), *shape) + bytes(math.prod(shape))


def file_calls(folder: Path) -> Iterator[Callable]:
    """Yield calls that read what is wrong with a file, having written it."""
    path = folder / "file"
    for content in (gzip.compress(idx(3))[:-9], b"\0\0\x0d\x01" + bytes(20), idx(2, 3, 4)[:-1]):
        path.write_bytes(content)
        yield lambda: data.read_idx(path)
    yield lambda: data.idx_images(folder)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(2, 3, 4))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(2 if part == "train" else 3))
    yield lambda: data.idx_images(folder)
    yield lambda: sweeps.sweep(drawn, {"gain": [1], "depth": [1]}, seeds=1, file=path)
    path.write_text('{"measurement": "drawn 0"}\n')
    yield lambda: sweeps.sweep(drawn, {"gain": [1], "depth": [1]}, seeds=1, file=path)


def refused(call: Callable) -> Exception:
    """Return the error that a call raises."""
    try:
        call()
    except (ValueError, TypeError, NotImplementedError, AssertionError, OSError) as error:
        return error
    raise RuntimeError(f"{__file__}, line {call.__code__.co_firstlineno}: nothing was raised")


def said(error: Exception, folder: Path) -> str:
    """Return what an error says, without the name of a folder, and numbers to four digits."""
    text = str(error).replace(str(folder), "FOLDER")
    return re.sub(r"\d+\.\d{4,}", lambda digits: f"{float(digits[0]):.4g}", text)


@cache
def refusals() -> list[tuple[Exception, str]]:
    """Return the error of each call, and what it says."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name).resolve()
        errors = [*map(refused, CALLS), *map(refused, file_calls(folder))]
    return [(error, said(error, folder)) for error in errors]
