"""Running what a learner wrote: quiet, limited in time, with the same luck; errors become sentences."""

import contextlib
import ctypes
import io
import linecache
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch

SECONDS = 10.0  # the first optimizer of a process takes some seconds to import


class Unreadable(Exception):
    """An answer that cannot be judged; its message is a sentence for the learner."""


class _Late(BaseException):
    """Raised in the thread of what runs too long; not an Exception, lest that catches it."""


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let a thread raise an error at its next step; None: take back one that has not been raised yet."""
    wanted = ctypes.py_object(error) if error else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), wanted)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt what runs in this thread after so many seconds. Raises: Unreadable then."""
    over, here = threading.Event(), threading.get_ident()

    def watch() -> None:  # again and again, for what is raised in a finalizer is lost
        ended = over.wait(seconds)
        while not ended:
            _raise_in(here, _Late)
            ended = over.wait(0.1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except _Late:
        raise Unreadable(f"it had not ended after {seconds:g} seconds, and was stopped") from None
    finally:
        while watcher.is_alive():
            with contextlib.suppress(_Late):
                over.set()
                watcher.join()
        _raise_in(here, None)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let what draws without a generator draw from `seed`, and put torch's random state back."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        yield


def run(measure: Callable[[Any], Any], function: Callable) -> Any:
    """Return measure(function), without what it prints, with the same random numbers of torch each time.

    Raises: Unreadable for whatever goes wrong in it, with the learner's line where it was that.
    """
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), seeded(0):
        try:
            with limited(SECONDS):
                return measure(function)
        except Unreadable:
            raise
        except (Exception, SystemExit) as error:  # exit() is no way out
            raise Unreadable(_where(error, function)) from None


def _where(error: BaseException, function: Callable) -> str:
    """Return what was raised, and in which line of the file that the function is from."""
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not lines:
        return f"calling it gave {said}"
    text = (linecache.getline(file, lines[-1].lineno) or lines[-1].line or "").strip()
    return f'your line {lines[-1].lineno}, "{text}", raised {said}'
