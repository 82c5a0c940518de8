"""Running what a learner wrote: quiet, limited in time, with the same luck; errors become sentences."""

import _thread
import contextlib
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


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt what runs in the main thread after so many seconds. Raises: Unreadable then."""
    late = threading.Event()

    def interrupt() -> None:
        late.set()
        _thread.interrupt_main()

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if not late.is_set():
            raise
        raise Unreadable(f"it had not ended after {seconds:g} seconds, and was stopped") from None
    finally:
        timer.cancel()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let what draws without a generator draw from `seed`, and put torch's random state back."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        yield


def run(measure: Callable[[Any], Any], function: Callable) -> Any:
    """Return measure(function), without what it prints, with the same random numbers each time.

    Raises: Unreadable for whatever goes wrong in it, with the learner's line where it was that.
    """
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), seeded(0):
        try:
            with limited(SECONDS):
                return measure(function)
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(_where(error, function)) from None


def _where(error: Exception, function: Callable) -> str:
    """Return what was raised, and in which line of the file that the function is from."""
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not lines:
        return f"calling it gave {said}"
    text = (linecache.getline(file, lines[-1].lineno) or lines[-1].line or "").strip()
    return f'your line {lines[-1].lineno}, "{text}", raised {said}'
