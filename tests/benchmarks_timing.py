"""How benchmarks measure, and the ratios that they noted."""

import timeit

NOTED: dict[str, float] = {}  # less is better


def best(function, number=1, repeat=7):
    """Return the least time of one call, in seconds."""
    return min(timeit.repeat(function, number=number, repeat=repeat)) / number


def note(name, ratio):
    """Keep a ratio, of which less is better, for the record, and return it."""
    NOTED[name] = ratio
    return ratio


def times(functions, rounds=15):
    """Return the least time of each function, in interleaved rounds, so that a slow moment meets all."""
    return [
        min(column)
        for column in zip(*([best(f, repeat=1) for f in functions] for _ in range(rounds)), strict=True)
    ]


def ratio(ours, theirs, rounds=15):
    """Return time of `ours` / time of `theirs`, best of interleaved rounds."""
    a, b = times([ours, theirs], rounds)
    return a / b
