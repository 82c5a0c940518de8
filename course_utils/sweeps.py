"""Sweeps: one measurement over a grid of parameters and seeds, on all cores or on a Dask cluster.

A task's generator starts from a hash of its parameters and its seed. So what it measures depends neither on
the order of tasks, nor on the number of workers, nor on what else is on the grid.
"""

import copyreg
import inspect
import json
import math
import os
import pickle
import threading
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import lru_cache, partial
from itertools import product
from numbers import Integral
from pathlib import Path
from reprlib import repr as shortened
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from course_utils.training import progress_bar

Scalar = float | int | bool | str | None
Task = tuple[str, dict[str, Scalar]]  # its key, its parameters
Outcome = tuple[str, dict[str, Scalar], str]  # the key of a task, its results, and what went wrong

# A worker of Dask may have several threads, which share torch's global generator: one task at a time in each.
_alone = threading.Lock()

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
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(f"{name} needs a list of values; got {values!r}")
    if taken := {"seed", "error"} & grid.keys():
        raise ValueError(f"the table has columns seed and error; got parameters named {', '.join(taken)}")
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


def start_of(parameters: Mapping[str, Scalar], seed: int) -> int:
    """Return what the generator of a task starts from, below 2**63, to measure a row of the table by hand.

    `measure(**parameters, generator=torch.Generator().manual_seed(start_of(parameters, seed)))` does, or
    `measure(**parameters, seed=start_of(parameters, seed))`.
    """
    return _start_of(
        _key({name: _plain(value, name) for name, value in parameters.items()}, _plain(seed, "seed"))
    )


def _described(error: BaseException) -> str:
    """Return an exception in a line, with the last place outside of this file that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    place = f" ({frames[-1].name}, {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _measured(measure: Callable, randomness: str, key: str, parameters: Mapping[str, Scalar]) -> Outcome:
    """Return the results of a task and "", or no results and what went wrong."""
    torch.set_num_threads(1)  # a worker of Dask may have more
    start = _start_of(key)
    source = start if randomness == "seed" else torch.Generator().manual_seed(start)
    try:
        with _alone:
            results = measure(**parameters, **{randomness: source})
        results = dict(results) if isinstance(results, Mapping) else {"value": results}
        dict(seed=0, error="", **parameters, **results)  # fails if a result is named like another column
        return key, {name: _plain(value, name) for name, value in results.items()}, ""
    except (Exception, SystemExit) as error:
        return key, {}, _described(error)


def _here(measure: Callable, randomness: str, tasks: list[Task], workers: int) -> Iterator[Outcome]:
    """Yield what processes of this machine measure, each as soon as it is there."""
    calls = (delayed(_measured)(measure, randomness, *task) for task in tasks)
    with threadpool_limits(1), parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
        yield from Parallel(return_as="generator_unordered")(calls)


_loaded = lru_cache(1)(pickle.loads)


def _measured_there(task: Task, pickled: bytes, randomness: str) -> Outcome:
    """Measure on a worker, which may be unable to load the measurement."""
    try:
        measure = _loaded(pickled)
    except Exception as error:
        return task[0], {}, _described(error)
    return _measured(measure, randomness, *task)


def _there(measure: Callable, randomness: str, tasks: list[Task], scheduler: str) -> Iterator[Outcome]:
    """Yield what the workers of a Dask cluster measure, those that join later, too.

    Not by joblib's backend: it gives late workers nothing, and waits for ever where a task cannot be loaded.
    """
    import cloudpickle  # of the extra `cluster`, as is
    from distributed import Client, as_completed

    with Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(1)
        pickled = client.submit(bytes, cloudpickle.dumps(measure), pure=False)  # sent once to each worker
        asked = client.map(_measured_there, tasks, pickled=pickled, randomness=randomness, pure=False)
        keys = {future.key: key for future, (key, _) in zip(asked, tasks, strict=True)}
        for future, outcome in as_completed(asked, client.loop, with_results=True, raise_errors=False):
            failed = future.status != "finished"  # its workers died, or lack this package
            yield (keys[future.key], {}, _described(future.exception())) if failed else outcome


def _code(code: CodeType) -> list[Any]:
    """Return what a function does, without comments, places, and names of its own variables."""
    constants = [_code(x) if isinstance(x, CodeType) else x for x in code.co_consts]
    constants = [sorted(map(repr, x)) if isinstance(x, frozenset) else x for x in constants]
    return [code.co_code.hex(), code.co_names, constants]


def _names(code: CodeType) -> set[str]:
    """Return what a function and those inside of it may look up as globals."""
    return {*code.co_names}.union(*(_names(x) for x in code.co_consts if isinstance(x, CodeType)))


def _identity(measure: Callable) -> str:
    """Return a function's name and a hash of its code, its defaults, and the numbers that it captures."""
    if not isinstance(measure, FunctionType):
        got = type(measure).__name__
        raise TypeError(f"with a file, measure must be a function, by def or lambda; got {got}")
    captured = {name: measure.__globals__.get(name, ...) for name in _names(measure.__code__)}
    captured |= inspect.getclosurevars(measure).nonlocals
    values = captured | (measure.__kwdefaults__ or {}) | dict(enumerate(measure.__defaults__ or ()))
    plain = {str(name): value for name, value in values.items() if isinstance(value, Scalar)}
    text = repr([_code(measure.__code__), sorted(plain.items())])
    return f"{measure.__name__} {zlib.crc32(text.encode()):08x}"


def _stored(file: Path, identity: str) -> dict[str, tuple[dict[str, Scalar], str]]:
    """Return what a file holds by key, but for tasks that failed and lines that were cut off."""
    done = {}
    for line in filter(None, file.read_text(encoding="utf-8").splitlines() if file.exists() else ()):
        if not line.startswith(_LINE[: len(line)]):
            raise ValueError(f"{file} is no file of a sweep: name another file")
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # cut off
            continue
        if row["measurement"] != identity:
            names = (text.rpartition(" ")[0] for text in (row["measurement"], identity))
            raise ValueError("{} is of {}, not of this {}: name another file".format(file, *names))
        if not row["error"]:
            done[_key(row["parameters"], row["seed"])] = row["results"], ""
    return done


_LINE = '{"measurement": "'  # how each line of a file begins


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

    measure: takes the grid's parameters by name and `generator`, torch's, or `seed`, an integer below 2**63
    (for NumPy `default_rng(seed)`); both come from a hash of parameters and seed, as `start_of` says. It
    returns a number, or several by name, draws from nothing else, and has one thread.
    grid: values by parameter. seeds: those of each point, or how many.
    file: where each result is kept, a line of JSON, as soon as it is there. If it exists, only tasks that it
    lacks or that failed are run; what it holds beyond the grid stays there. `measure` has to be the function
    it was, on the same version of Python: its code, defaults, and the numbers and words that it captures.
    What it calls and other objects are not compared: after a change there take a new file. Two sweeps into
    one file at the same time measure everything twice.
    workers: how many processes, -1 for one a core; 1 stays in this one. A process that dies ends the sweep.
    scheduler: the address of a Dask cluster to use instead, such as "tcp://node:8786"; needs the extra
    `cluster`, this package on the workers, and what else `measure` imports. A worker that joins later takes
    part; a task on which four workers died has failed. Each worker needs one thread (`--nthreads 1`), for it
    runs one task at a time; a scheduler hands out a few hundred tasks a second, so let them be long.
    Returns: the parameters, `seed`, what was measured (a single number as `value`), and `error`, which is
    empty but for tasks that failed; the others go on, and a warning says how many failed.
    Raises: ValueError without tasks, for one task twice, and for a file of another measurement or of
    something else; TypeError for values that are no numbers or words, for parameters that `measure` does not
    take, and with a file for what is no function.
    """
    tasks = _tasks(grid, range(seeds) if isinstance(seeds, Integral) else seeds)
    signature = inspect.signature(measure)
    randomness = "seed" if "seed" in signature.parameters else "generator"
    signature.bind(**dict.fromkeys([*grid, randomness]))
    identity = file and _identity(measure)
    done = _stored(Path(file), identity) if file else {}
    missing = [(key, parameters) for key, (parameters, _) in tasks.items() if key not in done]
    outcomes = partial(_here, workers=workers) if scheduler is None else partial(_there, scheduler=scheduler)
    with (
        Path(file or os.devnull).open("a", encoding="utf-8") as lines,
        closing(outcomes(measure, randomness, missing)) as stream,
        progress_bar(len(missing), "sweep") as bar,
    ):
        lines.write("\n")  # ends a line that was cut off
        for key, results, error in stream:
            done[key] = results, error
            parameters, seed = tasks[key]
            row = {"measurement": identity, "parameters": parameters, "seed": seed}
            print(json.dumps(row | {"results": results, "error": error}), file=lines, flush=True)
            bar.update()
    rows = [parameters | {"seed": seed} | done[key][0] for key, (parameters, seed) in tasks.items()]
    table = pd.DataFrame(rows).assign(error=[done[key][1] for key in tasks])
    if failed := (table.error != "").sum():
        warnings.warn(f"{failed} of {len(table)} tasks failed: see the column error", stacklevel=2)
    return table
