"""Measurements for the tests of sweeps, in a module that workers can import."""

import os
import time

import torch

SHARED = torch.Generator()


def drawn(gain, depth, generator):
    """Return what is drawn, as numbers of several kinds."""
    number = gain * torch.randn((), generator=generator)
    return {"number": number, "layers": depth + 1, "deep": depth > 1}


def quick(gain, generator):
    """Return a number."""
    return gain * torch.randn((), generator=generator)


def slow(gain, generator):
    """Return the number of `quick` after a while, in which a sweep can be killed."""
    time.sleep(0.05)
    return quick(gain, generator)


def deadly(gain, seed):
    """Return the gain, but end the process at gain 3."""
    if gain == 3:
        os._exit(1)
    return gain


def threads(gain, seed):
    """Return how many threads torch has."""
    return torch.get_num_threads()


def seeding(width, seed):
    """Return a number drawn from one generator of the process, as torch's global one, which threads share."""
    SHARED.manual_seed(seed)
    return sum(torch.randn(width, generator=SHARED).std().item() for _ in range(50))


def where(gain, seed):
    """Return, after a while, the process that measures."""
    time.sleep(0.05)
    return os.getpid()
