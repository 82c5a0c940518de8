"""A sweep gives each task its number, whatever else is on the grid, on any workers, after any kill."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from measurements import deadly, drawn, quick, seeding, slow, threads, where
from pandas.testing import assert_frame_equal
from threadpoolctl import threadpool_info, threadpool_limits

from course_utils import sweeps
from course_utils.sweeps import sweep

GRID = {"gain": [0.5, 1.0, 2.0], "depth": [1, 2]}
LONG = {"gain": list(range(40))}
PLACES = count()


def most_threads(generator):
    """Return how many threads NumPy and the like may use here."""
    return max(pool["num_threads"] for pool in threadpool_info())


def alone(measure=drawn, grid=GRID, seeds=3, **options):
    """Return a sweep in this process."""
    return sweep(measure, grid, seeds=seeds, workers=1, **options)


def lines(file):
    """Return the tasks in a file."""
    return [line for line in file.read_text().splitlines() if line] if file.exists() else []


def check_order_and_larger_grid():
    larger = alone(grid={"depth": [3, 2, 1], "gain": [4, 2, 1, 0.5]}, seeds=[7, 2, 1, 0])
    table = alone()
    assert_frame_equal(table[["gain", "depth", "seed"]].merge(larger)[table.columns], table)
    assert larger.number.nunique() == len(larger) == 48


@pytest.fixture
def counted():
    """Return a measurement, and what it was called with."""
    calls = []

    def measure(gain, generator):
        calls.append(gain)
        return gain * torch.randn((), generator=generator)

    return measure, calls


def test_neither_order_nor_a_larger_grid_changes_a_number():
    check_order_and_larger_grid()


@pytest.mark.parametrize("start_of", [lambda key: next(PLACES), lambda key: 0])
def test_seeds_by_place_or_all_the_same_are_found(start_of, monkeypatch):
    monkeypatch.setattr(sweeps, "_start_of", start_of)
    with pytest.raises(AssertionError):
        check_order_and_larger_grid()


def test_the_number_of_workers_changes_nothing():
    assert_frame_equal(sweep(drawn, GRID, seeds=3, workers=2), alone())


def test_a_function_that_workers_cannot_import_reaches_them():
    images = SimpleNamespace(classes=10)  # torch.classes does not pickle, and goes with it

    def measure(gain, generator):
        return gain * images.classes * torch.rand((), generator=generator)

    grid = {"gain": [1, 2]}
    assert_frame_equal(sweep(measure, grid, seeds=2, workers=2), alone(measure, grid, seeds=2))


def test_the_table_is_tidy():
    table = alone()
    assert list(table) == ["gain", "depth", "seed", "number", "layers", "deep", "error"]
    assert [dtype.kind for dtype in table.dtypes[:-1]] == list("fiifib")
    assert table.index.equals(table.reset_index().index)
    assert (table.error == "").all()
    assert table.gain.tolist() == [gain for gain in GRID["gain"] for _ in range(6)]
    assert (table.layers == table.depth + 1).all()
    assert list(alone(lambda seed: 1.0, {})) == ["seed", "value", "error"]


def test_generator_and_seed_start_alike_and_as_ever():
    def seeded(gain, depth, seed):
        return drawn(gain, depth, torch.Generator().manual_seed(seed))

    assert_frame_equal(alone(seeded), alone())
    starts = {
        sweeps._start_of(sweeps._key({"gain": gain}, seed)) for gain in range(100) for seed in range(100)
    }
    assert len(starts) == 10_000
    key = sweeps._key({"gain": 1.0, "depth": 2}, 0)
    assert (key, sweeps._start_of(key)) == ('[{"depth": 2, "gain": 1}, 0]', 2182634756838236596)


def test_each_task_has_one_thread_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for workers in (1, 2):
            assert (sweep(threads, {"gain": [1, 2]}, seeds=2, workers=workers).value == 1).all()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_libraries_have_one_thread_too_and_the_caller_keeps_theirs():
    with threadpool_limits(2):
        before = most_threads(None)
        assert (alone(most_threads, {}, 1).value == 1).all()
        assert most_threads(None) == before == 2


def test_a_failed_task_is_a_row_and_the_others_go_on():
    def picky(gain, seed):
        return {1: 0.5, 2: {"gain": 3}, 3: [1, 2], 4: {"error": "none"}}[gain]

    with pytest.warns(UserWarning, match="4 of 5 tasks failed"):
        table = alone(picky, {"gain": range(1, 6)}, seeds=1)
    assert table.gain.tolist() == [1, 2, 3, 4, 5]
    assert table.value.tolist()[0] == 0.5
    assert table.value.isna().tolist() == [False, True, True, True, True]
    assert table.error.tolist() == [
        "",
        "TypeError: dict() got multiple values for keyword argument 'gain'",
        "TypeError: value must be a number, a word, a truth value or None; got [1, 2]",
        "TypeError: dict() got multiple values for keyword argument 'error'",
        f"KeyError: 5 (picky, test_sweeps.py:{picky.__code__.co_firstlineno + 1})",
    ]


def test_only_tasks_that_the_file_lacks_are_run(counted, tmp_path):
    (measure, calls), file = counted, tmp_path / "sweep.jsonl"
    first = alone(measure, {"gain": [1, 2]}, file=file)
    calls.clear()
    larger = alone(measure, {"gain": [1.0, 2.0, 3.0]}, seeds=4, file=file)
    assert calls == [1, 2, 3, 3, 3, 3]
    assert_frame_equal(larger, alone(measure, {"gain": [1.0, 2.0, 3.0]}, seeds=4))
    calls.clear()
    assert_frame_equal(alone(measure, {"gain": [1, 2]}, file=str(file)), first)
    assert calls == []
    assert len(lines(file)) == 12


def test_what_is_read_is_what_was_measured(tmp_path):
    def measure(gain, seed):
        kinds = {"whole": gain, "word": "größer\n", "truth": gain > 1, "none": None, "start": seed}
        return kinds | {"nan": float("nan"), "inf": -np.inf, "single": np.float32(gain / 3)}

    file = tmp_path / "sweep.jsonl"
    table = alone(measure, {"gain": [1, 2]}, file=file)
    assert (table.error == "").all()
    for _ in range(2):
        assert_frame_equal(alone(measure, {"gain": np.array([1, 2])}, file=file), table)


def test_a_grid_by_linspace_has_the_points_of_one_by_hand(counted, tmp_path):
    (measure, calls), file = counted, tmp_path / "sweep.jsonl"
    fine = np.linspace(0, 1, 11)
    assert fine[3] != 0.3
    alone(measure, {"gain": [0.3, 1]}, seeds=1, file=file)
    alone(measure, {"gain": fine}, seeds=1, file=file)
    assert len(calls) == 11


def test_failed_tasks_are_run_again(tmp_path):
    missing = {1, 2}

    def measure(gain, seed):
        if gain in missing:
            raise OSError("not there")
        return gain

    options = {"grid": {"gain": [1, 2, 3]}, "seeds": 1, "file": tmp_path / "sweep.jsonl"}
    with pytest.warns(UserWarning, match="2 of 3"):
        errors = alone(measure, **options).error.tolist()
    assert [error.partition(" (")[0] for error in errors] == ["OSError: not there"] * 2 + [""]
    missing.clear()
    assert alone(measure, **options).value.tolist() == [1, 2, 3]
    assert alone(measure, **options).value.tolist() == [1, 2, 3]


def test_a_line_that_was_cut_off_anywhere_is_measured_again(counted, tmp_path):
    (measure, calls), file = counted, tmp_path / "sweep.jsonl"
    table = alone(measure, {"gain": [1, 2]}, seeds=1, file=file)
    whole = file.read_bytes()
    *_, last = lines(file)
    for kept in range(len(last)):
        file.write_bytes(whole[: kept - len(last) - 1])
        calls.clear()
        for _ in range(2):
            assert_frame_equal(alone(measure, {"gain": [1, 2]}, seeds=1, file=file), table)
        assert calls == [2]


@pytest.mark.parametrize("change", ["captured", "default", "code", "constant"])
def test_a_function_that_changed_is_another_measurement(change, tmp_path):
    def make(width, power=2, kind="old"):
        if kind == "code":
            return lambda gain, seed: width + gain
        if kind == "constant":
            return lambda gain, seed: width * gain * 3
        return lambda gain, seed, power=power: width * gain * 2

    file, changed = tmp_path / "sweep.jsonl", {"width": 10, "power": 2, "kind": change}
    changed |= {"captured": {"width": 20}, "default": {"power": 3}}.get(change, {})
    alone(make(10), {"gain": [1]}, seeds=1, file=file)
    alone(make(10), {"gain": [1, 2]}, seeds=1, file=file)  # the same lambda in another call
    with pytest.raises(ValueError, match="name another file"):
        alone(make(**changed), {"gain": [1]}, seeds=1, file=file)


def test_a_global_that_an_inner_function_takes_is_compared(tmp_path):
    source = "def measure(gain, seed):\n    return sum((lambda k: k * WIDTH)(k) for k in (gain,))"
    for width, refused in ((10, False), (10, False), (20, True)):
        exec(source, space := {"WIDTH": width})
        with pytest.raises(ValueError, match="name another file") if refused else nullcontext():
            alone(space["measure"], {"gain": [1]}, seeds=1, file=tmp_path / "sweep.jsonl")


def test_a_comment_changes_nothing(tmp_path):
    sources = (
        "def measure(gain, seed):\n    return gain",
        "\n\ndef measure(gain, seed):  # a\n    return gain",
    )
    for source in sources:
        exec(source, space := {})
        table = alone(space["measure"], {"gain": [1, 2]}, seeds=1, file=tmp_path / "sweep.jsonl")
    assert len(lines(tmp_path / "sweep.jsonl")) == len(table) == 2


def test_a_row_can_be_measured_by_hand():
    row = alone().iloc[7]
    parameters = {"gain": row.gain, "depth": row.depth}
    generator = torch.Generator().manual_seed(sweeps.start_of(parameters, row.seed))
    assert drawn(**parameters, generator=generator)["number"].item() == row.number


def test_what_is_no_file_of_a_sweep_is_left_alone(tmp_path):
    file = tmp_path / "results.csv"
    for text in ("a,b\n1,2\n", '{"other": 1}\n'):
        file.write_text(text)
        with pytest.raises(ValueError, match="no file of a sweep"):
            alone(file=file)
        assert file.read_text() == text


def test_with_a_file_a_measurement_is_a_function(tmp_path):
    with pytest.raises(TypeError, match="must be a function, by def or lambda"):
        alone(partial(drawn, depth=1), {"gain": [1]}, file=tmp_path / "sweep.jsonl")


def test_a_task_that_wants_to_exit_has_failed():
    with pytest.warns(UserWarning, match="1 of 3"):
        table = alone(lambda gain, seed: sys.exit(3) if gain == 2 else gain, {"gain": [1, 2, 3]}, seeds=1)
    assert table.error.str.startswith("SystemExit: 3").tolist() == [False, True, False]


def test_a_file_of_another_measurement_is_refused(tmp_path):
    file = tmp_path / "sweep.jsonl"
    alone(lambda gain, depth, seed: gain, file=file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="is of <lambda>, not of this drawn: name another file"):
        alone(file=file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("grid", "seeds", "error"),
    [
        ({"gain": [1, 1.0], "depth": [1]}, 1, ValueError),
        ({"gain": [1], "depth": []}, 1, ValueError),
        (GRID, [0, 0], ValueError),
        (GRID, 0, ValueError),
        ({"gain": [torch.ones(2)], "depth": [1]}, 1, TypeError),
        ({"gain": [1]}, 1, TypeError),
        ({"gain": 1.0, "depth": [1]}, 1, TypeError),
        ({"gain": [1], "depth": "12"}, 1, TypeError),
        ({"gain": [1], "depth": [1], "error": [1]}, 1, ValueError),
        ({"gain": [1], "depth": [1], "width": [1]}, 1, TypeError),
    ],
)
def test_what_is_no_grid_is_refused(grid, seeds, error):
    with pytest.raises(error):
        alone(grid=grid, seeds=seeds)


def wait_for(file, tasks):
    """Wait until so many tasks are in a file."""
    end = time.monotonic() + 120
    while len(lines(file)) < tasks:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.skipif(os.name == "nt", reason="no process groups")
def test_a_killed_sweep_goes_on_where_it_ended(tmp_path):
    file = tmp_path / "sweep.jsonl"
    code = "import sys, measurements, course_utils.sweeps as s\n"
    code += f"s.sweep(measurements.slow, {LONG}, seeds=1, workers=2, file=sys.argv[1])"
    paths = os.pathsep.join(str(Path(path).parent) for path in (__file__, Path(__file__).parent))
    command = [sys.executable, "-c", code, str(file)]
    environment = os.environ | {"PYTHONPATH": paths}
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(file, 5)
    os.killpg(process.pid, signal.SIGKILL)  # with its workers
    assert process.wait() == -signal.SIGKILL
    before = lines(file)
    assert 5 <= len(before) < 40
    assert_frame_equal(sweep(slow, LONG, seeds=1, workers=2, file=file), alone(quick, LONG, seeds=1))
    assert lines(file)[: len(before) - 1] == before[:-1]  # the last one may have been cut off
    assert 40 <= len(lines(file)) <= 41


def test_a_worker_that_dies_ends_the_sweep_and_the_file_keeps_the_rest(tmp_path):
    file = tmp_path / "sweep.jsonl"
    with pytest.raises(RuntimeError, match="terminated"):
        sweep(deadly, {"gain": [1, 2, 3]}, seeds=1, workers=2, file=file)
    done = [json.loads(line)["results"]["value"] for line in lines(file)]
    assert 3 not in done


without_dask = pytest.mark.skipif(
    find_spec("distributed") is None, reason="Dask, of the extra `cluster`, is not installed"
)


@without_dask
def test_a_cluster_that_loses_a_worker_measures_the_same(tmp_path):
    from distributed import Client, LocalCluster

    file = tmp_path / "sweep.jsonl"

    def lose_one():
        wait_for(file, 5)
        os.kill(next(iter(workers.values())), signal.SIGKILL)

    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            workers = client.run(os.getpid)
        killer = threading.Thread(target=lose_one)
        killer.start()
        table = sweep(slow, LONG, seeds=1, scheduler=cluster.scheduler_address, file=file)
        killer.join()
        with Client(cluster) as client:
            assert set(client.run(os.getpid).values()) != set(workers.values())
    assert_frame_equal(table, alone(quick, LONG, seeds=1))
    assert len(lines(file)) == 40


@without_dask
def test_a_worker_that_joins_late_takes_part(tmp_path):
    from distributed import LocalCluster

    file = tmp_path / "sweep.jsonl"

    def grow():
        wait_for(file, 3)
        cluster.scale(2)

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        growing = threading.Thread(target=grow)
        growing.start()
        grid = {"gain": list(range(200))}
        table = sweep(where, grid, seeds=1, scheduler=cluster.scheduler_address, file=file)
        growing.join()
    assert table.value.nunique() == 2


@without_dask
def test_threads_of_a_worker_do_not_share_what_they_draw():
    from distributed import LocalCluster

    grid = {"width": list(range(20, 60))}
    with LocalCluster(n_workers=1, threads_per_worker=4, processes=True, dashboard_address=None) as cluster:
        table = sweep(seeding, grid, seeds=1, scheduler=cluster.scheduler_address)
    assert_frame_equal(table, alone(seeding, grid, seeds=1))


@without_dask
def test_what_workers_cannot_load_or_survive_is_a_row(tmp_path, monkeypatch):
    from distributed import LocalCluster

    (tmp_path / "unknown_there.py").write_text("def measure(gain, seed):\n    return gain\n")
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.syspath_prepend(tmp_path)
        unknown = importlib.import_module("unknown_there").measure
        with pytest.warns(UserWarning, match="2 of 2"):
            table = sweep(unknown, {"gain": [1, 2]}, seeds=1, scheduler=cluster.scheduler_address)
        assert table.error.str.startswith("ModuleNotFoundError: No module named 'unknown_there'").all()
        with pytest.warns(UserWarning, match="1 of 3"):
            table = sweep(deadly, {"gain": [1, 2, 3]}, seeds=1, scheduler=cluster.scheduler_address)
        assert table.error.str.startswith("KilledWorker").tolist() == [False, False, True]
