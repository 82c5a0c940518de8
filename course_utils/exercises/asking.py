"""What a question is: its words, its right answer, and the mistakes people make, with what each gets told.

Right answers and mistakes are computed by the functions of the course. A function is run, and what is
measured on it is compared with the same measured on a right one and on wrong ones: a mistake is told by what
it does.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from reprlib import repr as shortened
from textwrap import fill
from typing import Any, NamedTuple

from course_utils.exercises.running import Unreadable, run

Values = tuple[float, ...]


class Verdict(NamedTuple):
    """Whether an answer is right, None where nobody can tell, and what to say of it."""

    right: bool | None
    words: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """What every question has: a statement in Markdown, 1 to 3 stars, minutes, two hints, a solution.

    `because` is said of a right answer. Hints: where to look, and the first step.
    """

    statement: str
    stars: int
    minutes: int
    hints: tuple[str, str]
    because: str
    solution: str

    def cell(self, number: str) -> str:
        """Return the code cell in which the question is answered, as it stands before that."""
        name = f"answer_{number.partition('.')[2]}"
        return f'{name} = ...\ncheck("{number}", {name})'

    def judge(self, given: Any) -> Verdict:
        """Return the verdict on an answer. Raises: Unreadable for what is no answer to such a question."""
        raise NotImplementedError

    def _told(
        self, values: Values, mistakes: list[tuple[Values, str]], tolerance: float, said: str
    ) -> Verdict:
        """Return the verdict on values, of which the first of the `mistakes` are the right ones."""
        for place, (wanted, message) in enumerate(mistakes):
            if near(values, wanted, tolerance):
                return Verdict(place == 0, message)
        return Verdict(False, f"{said} {self.hints[0]}")

    def _other_forms(self, values: Values, right: Values) -> list[tuple[Values, str]]:
        """Return forms in which right numbers are not yet right, each with what that gets told."""
        forms = [(tuple(100 * x for x in right), "That is in per cent; give the number itself.")]
        if "log_{10}" in self.statement:
            natural = tuple(math.log(10) * x for x in right)
            forms.append((natural, "That is a natural logarithm; the one to base 10 is asked for."))
        rounded = [tuple(float(f"{x:.{digits}g}") for x in right) for digits in (1, 2)]
        if values in rounded and near(values, right, 0.06) and not all(float(x).is_integer() for x in right):
            forms.append((values, "Near, but rounded: give three digits."))
        return forms


@dataclass(frozen=True, kw_only=True)
class Number(Question):
    """A number, right within `tolerance`, relative; `mistakes` are pairs: a number, and what it gets told."""

    answer: float
    mistakes: tuple[tuple[float, str], ...]
    tolerance: float = 0.01

    def judge(self, given: Any) -> Verdict:
        """Return the verdict on a number of Python, NumPy, torch or SymPy."""
        value = as_number(given)
        known = [((wanted,), text) for wanted, text in ((self.answer, self.because), *self.mistakes)]
        known += self._other_forms((value,), (self.answer,))
        return self._told((value,), known, self.tolerance, f"{value:.4g} is not it.")


@dataclass(frozen=True, kw_only=True)
class Experiment(Question):
    """Measured numbers by name, to be handed in as a dictionary; else as `Number`, with dictionaries."""

    answer: Mapping[str, float]
    mistakes: tuple[tuple[Mapping[str, float], str], ...]
    tolerance: float

    def cell(self, number: str) -> str:
        """Return the dictionary that is to be filled in, and its check."""
        name = f"answer_{number.partition('.')[2]}"
        items = ", ".join(f'"{key}": ...' for key in self.answer)
        return f'{name} = {{{items}}}\ncheck("{number}", {name})'

    def judge(self, given: Any) -> Verdict:
        """Return the verdict on a dictionary with a number for each name."""
        if not isinstance(given, Mapping) or set(given) != set(self.answer):
            names = ", ".join(map(repr, self.answer))
            raise Unreadable(f"a dictionary with {names} is expected; got {shortened(given)}")
        values = tuple(as_number(given[name]) for name in self.answer)
        known = [
            (tuple(wanted[name] for name in self.answer), text)
            for wanted, text in ((self.answer, self.because), *self.mistakes)
        ]
        right = known[0][0]
        known += self._other_forms(values, right)
        wrong = [
            repr(name)
            for name, value, wanted in zip(self.answer, values, right, strict=True)
            if not near((value,), (wanted,), self.tolerance)
        ]
        return self._told(values, known, self.tolerance, f"Not yet right: {', '.join(wrong)}.")


@dataclass(frozen=True, kw_only=True)
class Function(Question):
    """A function to write. `measure` takes one and returns numbers, `names` says what these are.

    `right` is a solution, `mistakes` are pairs of a wrong function and what that gets told. `stub` is the
    line that the learner finds, such as "def he_uniform_(tensor, generator):".
    """

    stub: str
    measure: Callable[[Callable], Values]
    names: tuple[str, ...]
    right: Callable
    mistakes: tuple[tuple[Callable, str], ...]
    tolerance: float

    def cell(self, number: str) -> str:
        """Return the stub and its check."""
        name = self.stub.removeprefix("def ").partition("(")[0]
        return f'{self.stub} ...\n\n\ncheck("{number}", {name})'

    @cached_property
    def _known(self) -> list[tuple[Values, str]]:
        return [(self.measured(f), text) for f, text in ((self.right, self.because), *self.mistakes)]

    def measured(self, function: Callable) -> Values:
        """Return what is measured on a function; what only rounding keeps from 0 is 0."""
        return tuple(round(value, 9) for value in run(self.measure, function))

    def judge(self, given: Any) -> Verdict:
        """Return the verdict on a function, from what is measured on it and on those that are known."""
        if not callable(given):
            raise Unreadable(f"a function is expected; got {type(given).__name__} {shortened(given)}")
        return self.told(self.measured(given))

    def told(self, values: Values) -> Verdict:
        """Return the verdict on a function of which these values were measured."""
        found = "; ".join(f"{name}: {value:.3g}" for name, value in zip(self.names, values, strict=True))
        return self._told(values, self._known, self.tolerance, f"Measured on yours: {found}.")


@dataclass(frozen=True, kw_only=True)
class Choice(Question):
    """One of some texts; `options` maps each to what it gets told, `answer` is the right one."""

    options: Mapping[str, str]
    answer: str
    because: str = ""  # it stands among the options

    def cell(self, number: str) -> str:
        """Return the code cell, with the options as a comment."""
        known = ", ".join(f'"{option}"' for option in sorted(self.options))
        comment = fill(f"one of {known}", 100, initial_indent="# ", subsequent_indent="# ")
        return f"{comment}\n{super().cell(number)}"

    def judge(self, given: Any) -> Verdict:
        """Return the verdict on one of the options, in capitals or not."""
        wanted = {option.casefold(): option for option in self.options}
        chosen = wanted.get(given.strip().casefold()) if isinstance(given, str) else None
        if chosen is None:
            raise Unreadable(
                f"one of {', '.join(map(repr, self.options))} is expected; got {shortened(given)}"
            )
        return Verdict(chosen == self.answer, self.options[chosen])


@dataclass(frozen=True, kw_only=True)
class Open(Question):
    """A question without one answer: whoever has written one gets a model answer, `because`, to compare."""

    def judge(self, given: Any) -> Verdict:
        """Return the model answer to a text of a sentence or more."""
        if not isinstance(given, str):
            raise Unreadable("a sentence or two, as a text in quotation marks, are expected")
        if len(given.split()) < 5:
            raise Unreadable("that is short: write a sentence or two")
        return Verdict(None, f"Compare yours with this: {self.because}")


def is_untouched(given: Any) -> bool:
    """Return whether the dots still stand there, in the place of a value or as all that a function does."""
    if isinstance(given, Mapping):
        return bool(given) and all(value is ... for value in given.values())
    code = getattr(given, "__code__", None)
    return given is ... or (code is not None and code.co_code == _blank.__code__.co_code)


def _blank() -> None: ...


def as_number(given: Any) -> float:
    """Return a number of Python, NumPy, torch or SymPy as a float. Raises: Unreadable for anything else."""
    try:
        if given is None or isinstance(given, str | bytes | bool | complex):
            raise TypeError
        value = float(given.item() if hasattr(given, "item") else given)
    except Exception:
        raise Unreadable(f"a number is expected; got {type(given).__name__} {shortened(given)}") from None
    if not math.isfinite(value):
        raise Unreadable(f"a finite number is expected; got {value}")
    return value


def near(values: Values, wanted: Values, tolerance: float) -> bool:
    """Return whether each value is within `tolerance` of the wanted one, relative, but for 0."""
    return all(abs(v - w) <= tolerance * (abs(w) or 1.0) for v, w in zip(values, wanted, strict=True))
