"""The questions of each notebook, one file for each, found by its number: nb04 holds 04.1, 04.2, ..."""

import importlib
import pkgutil
from functools import cache

from course_utils.exercises.asking import Question

NOTEBOOKS = sorted(module.name.removeprefix("nb") for module in pkgutil.iter_modules(__path__))


@cache
def questions_of(notebook: str) -> dict[str, Question]:
    """Return the questions of notebook "04" by their numbers, in order.

    Raises: ValueError for a notebook without any.
    """
    if notebook not in NOTEBOOKS:
        raise ValueError(f"notebooks with exercises are {', '.join(NOTEBOOKS)}; got {notebook!r}")
    found = importlib.import_module(f"{__name__}.nb{notebook}").QUESTIONS
    return {f"{notebook}.{place}": question for place, question in enumerate(found, start=1)}


def find(number: str) -> Question:
    """Return the question with this number, such as "04.3". Raises: ValueError for no such number."""
    known = questions_of(str(number).partition(".")[0])
    if number not in known:
        first, *_, last = known
        raise ValueError(f"exercises here are {first} to {last}; got {number!r}")
    return known[number]
