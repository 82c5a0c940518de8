"""What a learner calls: `check("04.3", answer)`, `hint("04.3")`, `solution("04.3")`, and `progress()`."""

import inspect
import textwrap
from typing import Any

from course_utils.comparison import guesses
from course_utils.exercises import record
from course_utils.exercises.asking import Function, Question, is_untouched
from course_utils.exercises.questions import NOTEBOOKS, find, questions_of
from course_utils.exercises.running import Unreadable

# What a verdict is recorded as, and said to be; an open question is done once it is answered.
_OUTCOMES = {
    True: (record.SOLVED, "right"),
    False: (record.TRIED, "not yet"),
    None: (record.SOLVED, "answered"),
}


def _say(words: str) -> None:
    style = {"width": 100, "subsequent_indent": "  ", "break_on_hyphens": False}
    for line in words.splitlines():
        print(textwrap.fill(line, **style))


def _found(number: str) -> Question | None:
    """Return the question, or say that there is none with this number."""
    try:
        return find(number)
    except ValueError as error:
        _say(f"{number}: {error}")
        return None


def check(number: str, answer: Any) -> None:
    """Say whether an answer is right; if it is not, which mistake it looks like, or where to look.

    number: of the exercise, such as "04.3". answer: a number, a function, a text, as the exercise asks.
    What was tried and solved, and the guesses made so far, are recorded for `progress`.
    """
    question = _found(number)
    if question is None:
        return
    for row in guesses():
        record.note(f"guess: {row.quantity}", record.NEAR if row.near else record.FAR)
    if is_untouched(answer):
        return _say(f"{number} not attempted yet: replace ... by your answer.")
    try:
        right, words = question.judge(answer)
    except Unreadable as reason:
        record.note(number, record.TRIED)
        return _say(f"{number} cannot be judged: {reason}.")
    state, said = _OUTCOMES[right]
    record.note(number, state)
    _say(f"{number} {said}. {words}")


def hint(number: str, level: int = 1) -> None:
    """Say where to look (level 1), or the first step (level 2)."""
    if question := _found(number):
        _say(f"{number} {question.hints[min(max(level, 1), 2) - 1]}")


def solution(number: str) -> None:
    """Print the solution; the exercise then counts as read, unless it is solved."""
    if question := _found(number):
        record.note(number, record.READ)
        _say(f"{number} {question.solution}")
        if isinstance(question, Function):
            print(f"\n{textwrap.dedent(inspect.getsource(question.right))}", end="")


def progress() -> None:
    """Print how many exercises of each notebook are solved, tried, read and open, and how guesses went."""
    events = record.events()
    print("notebook  solved  tried  read  open")
    for notebook in NOTEBOOKS:
        done = [_state(events.get(number, [])) for number in questions_of(notebook)]
        counts = [done.count(state) for state in (record.SOLVED, record.TRIED, record.READ, "")]
        print("{:8}  {:6}  {:5}  {:4}  {:4}".format(notebook, *counts))
    last = [done[-1] for name, done in events.items() if name.startswith("guess: ")]
    if last:
        print(f"Guesses within a factor of two: {last.count(record.NEAR)} of {len(last)}.")


def _state(done: list[str]) -> str:
    """Return the best that was done: solved, else read, else tried."""
    return next((state for state in (record.SOLVED, record.READ, record.TRIED) if state in done), "")
