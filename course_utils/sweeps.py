"""Sweeps: one measurement over a grid of parameters and seeds, on all cores or on a Dask cluster.

A task's generator starts from a hash of its parameters and its seed. So what it measures depends neither on
the order of tasks, nor on the number of workers, nor on what else is on the grid.
"""

import copyreg
import inspect
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from course_utils.training import progress_bar

Scalar = float | int | bool | str | None

# A function of a notebook that has both `torch` and some `.classes` in it, such as those of `data.digits()`,
# goes to workers with the module torch.classes, which does not pickle by itself.
copyreg.pickle(type(torch.classes), lambda _: (getattr, (torch, "classes")))


def _plain(value: Any, name: str) -> Scalar:
    """Return a number of Python, NumPy or torch, a word, a truth value or None as Python's own."""
    plain = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
    if not isinstance(plain, Scalar):
        raise TypeError(f"{name} must be a number, a word, a truth value or None; got {shortened(value)}")
    return plain


def _rounded(value: Scalar) -> Scalar:
    """Return a float to twelve digits, as an integer if it is whole, and anything else as it is."""
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() else rounded


def _key(parameters: Mapping[str, Scalar], seed: int) -> str:
    """Return one text for one task: 1 or 1.0, and 0.3 or what np.linspace makes of it, are the same."""
    return json.dumps([{name: _rounded(value) for name, value in parameters.items()}, seed], sort_keys=True)


def _tasks(grid: Mapping[str, Iterable], seeds: Iterable[int]) -> dict[str, tuple[dict[str, Scalar], int]]:
    """Return parameters and seed of each task by its key, in the grid's order."""
    columns = [[_plain(value, name) for value in values] for name, values in grid.items()]
    columns.append([_plain(seed, "a seed") for seed in seeds])
    points = [(dict(zip(grid, point, strict=True)), seed) for *point, seed in product(*columns)]
    tasks = {_key(*point): point for point in points}
    if not tasks or len(tasks) < math.prod(map(len, columns)):
        raise ValueError(f"expected values and seeds, none of them twice; got {shortened(columns)}")
    return tasks


def _start_of(key: str) -> int:
    """Return where the generator of a task starts, an integer below 2**63."""
    words = np.frombuffer(key.encode(), np.uint8).astype(np.uint32)
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def _measured(
    measure: Callable, randomness: str, key: str, parameters: Mapping[str, Scalar]
) -> tuple[str, dict[str, Scalar], str]:
    """Return the key of a task, its results and "", or no results and what went wrong."""
    torch.set_num_threads(1)  # a worker of Dask may have more
    start = _start_of(key)
    source = start if randomness == "seed" else torch.Generator().manual_seed(start)
    try:
        results = measure(**parameters, **{randomness: source})
        results = dict(results) if isinstance(results, Mapping) else {"value": results}
        dict(seed=0, error="", **parameters, **results)  # fails if a result is named like another column
        return key, {name: _plain(value, name) for name, value in results.items()}, ""
    except Exception as error:
        return key, {}, f"{type(error).__name__}: {error}"


def _identity(measure: Callable) -> str:
    """Return the name of a function and a hash of its source."""
    return f"{measure.__name__} {zlib.crc32(inspect.getsource(measure).encode()):08x}"


def _stored(file: Path, identity: str) -> dict[str, tuple[dict[str, Scalar], str]]:
    """Return what a file holds by key, but for tasks that failed and lines that were cut off."""
    done = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with suppress(json.JSONDecodeError):
            row = json.loads(line)
            if row["measurement"] != identity:
                raise ValueError(f"{file} is of {row['measurement']}, not of {identity}: name another file")
            if not row["error"]:
                done[_key(row["parameters"], row["seed"])] = row["results"], ""
    return done


@contextmanager
def _workers(count: int, scheduler: str | None) -> Iterator[None]:
    """Let joblib use so many processes, or a cluster, and let this process use one thread."""
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))
        if scheduler is None:
            stack.enter_context(parallel_config("loky", n_jobs=count, inner_max_num_threads=1))
        else:
            from distributed import Client  # of the extra `cluster`

            client = stack.enter_context(Client(scheduler, set_as_default=False))
            stack.enter_context(parallel_config("dask", client=client))
        yield


def sweep(
    measure: Callable[..., Mapping[str, Scalar] | Scalar],
    grid: Mapping[str, Iterable[Scalar]],
    *,
    seeds: int | Iterable[int],
    file: str | Path | None = None,
    workers: int = -1,
    scheduler: str | None = None,
) -> pd.DataFrame:
    """Return `measure` at every point of the grid for every seed, one row a task, in the grid's order.

    measure: takes the grid's parameters by name and `generator`, torch's, or `seed`, an integer, which come
    from a hash of parameters and seed. It returns a number, or several by name, and has one thread.
    grid: values by parameter. seeds: those of each point, or how many.
    file: where each result is kept, a line of JSON, as soon as it is there. If it exists, only tasks that it
    lacks or that failed are run; what it holds beyond the grid stays there. The source of `measure` has to be
    the one it was; what that calls is not compared: after a change there take a new file.
    workers: how many processes, -1 for one a core; 1 stays in this one. scheduler: the address of a Dask
    cluster to use instead, such as "tcp://node:8786"; needs the extra `cluster`, and this package on the
    workers. A process that dies ends the sweep. Dask gives its task to three others, and should all of
    them die, waits: interrupt, for the file has the rest.
    Returns: the parameters, `seed`, what was measured (a single number as `value`), and `error`, which is
    empty but for tasks that failed; the others go on.
    Raises: ValueError without tasks, for one task twice, and for a file of another measurement; TypeError for
    values that are no numbers or words, and for parameters that `measure` does not take.
    """
    tasks = _tasks(grid, range(seeds) if isinstance(seeds, int) else seeds)
    signature = inspect.signature(measure)
    randomness = "seed" if "seed" in signature.parameters else "generator"
    signature.bind(**dict.fromkeys([*grid, randomness]))
    identity = file and _identity(measure)
    done = _stored(Path(file), identity) if file else {}
    missing = [key for key in tasks if key not in done]
    calls = (delayed(_measured)(measure, randomness, key, tasks[key][0]) for key in missing)
    with (
        Path(file or os.devnull).open("a", encoding="utf-8") as lines,
        _workers(workers, scheduler),
        progress_bar(len(missing), "sweep") as bar,
    ):
        lines.write("\n")  # ends a line that was cut off
        for key, results, error in Parallel(return_as="generator_unordered")(calls):
            done[key] = results, error
            parameters, seed = tasks[key]
            row = {"measurement": identity, "parameters": parameters, "seed": seed}
            print(json.dumps(row | {"results": results, "error": error}), file=lines, flush=True)
            bar.update()
    rows = [parameters | {"seed": seed} | done[key][0] for key, (parameters, seed) in tasks.items()]
    return pd.DataFrame(rows).assign(error=[done[key][1] for key in tasks])
