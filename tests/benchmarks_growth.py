"""How time grows: the exponent of each doubling (log2 of the ratio of two times) against its limit."""

import math
from functools import partial
from itertools import pairwise

import torch
from benchmarks_timing import note, times
from torch import nn

from course_utils import activations, initializers, propagation
from course_utils.doctor.diagnosis import diagnose
from course_utils.sweeps import sweep

HE = partial(initializers.kaiming_normal_, nonlinearity="relu")


def constant(gain, seed):
    return gain


def simulated(depth=50, width=256, count=1):
    generator = torch.Generator().manual_seed(0)
    return partial(
        propagation.simulate, activations.relu, HE, [width] * (depth + 1), count=count, generator=generator
    )


def chain(depth=100, width=256, count=100):
    generator = torch.Generator().manual_seed(0)
    return partial(
        propagation.norm_chain, activations.tanh, 1.0, depth, width, count=count, generator=generator
    )


def profiled(batch):
    network = propagation.PlainNetwork([256] * 21, activations.tanh, HE)
    return partial(propagation.signal_profile, network, torch.randn(batch, 256))


def diagnosed(depth=8, batch=64, width=128):
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    return partial(diagnose, nn.Sequential(*layers), torch.randn(batch, width))


def filled(fill, width):
    return partial(fill, torch.empty(width, width))


def swept(seeds):
    return partial(sweep, constant, {"gain": range(10)}, seeds=seeds, workers=1)


# name: (what makes a call of a size, the first size, the exponent that it should have at most)
CASES = {
    "simulate, depth": (lambda n: simulated(depth=n), 25, 1),
    "simulate, width": (lambda n: simulated(width=n, depth=20), 256, 2),
    "simulate, seeds": (lambda n: simulated(count=n), 2, 1),
    "norm_chain, depth": (lambda n: chain(depth=n), 50, 1),
    "norm_chain, width": (lambda n: chain(width=n), 128, 1),
    "norm_chain, seeds": (lambda n: chain(count=n), 100, 1),
    "signal_profile, batch": (profiled, 256, 1),
    "diagnose, depth": (lambda n: diagnosed(depth=n), 8, 1),
    "diagnose, batch": (lambda n: diagnosed(batch=n), 256, 1),
    "diagnose, width": (lambda n: diagnosed(width=n), 128, 2),
    "sweep, seeds": (swept, 50, 1),
    "kaiming_normal_, width": (partial(filled, HE), 512, 2),
    "truncated, width": (partial(filled, initializers.trunc_normal_), 512, 2),
    "orthogonal_, width": (partial(filled, initializers.orthogonal_), 128, 3),
}


def exponents(make, first, doublings=3):
    """Return the exponent of each doubling of the size."""
    measured = times([make(first * 2**k) for k in range(doublings + 1)], rounds=5)
    return [math.log2(b / a) for a, b in pairwise(measured)]


def bench_growth():
    print("growth: exponents of three doublings, and the exponent that there should be at most")
    for name, (make, first, most) in CASES.items():
        found = exponents(make, first)
        note(f"growth: {name}", 2 ** (sum(found) / len(found)))  # a mean doubling's ratio
        print(f"  {name:24} from {first:4}  {'  '.join(f'{e:5.2f}' for e in found)}   {most}")
