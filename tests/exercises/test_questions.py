"""Each exercise knows its answer and its mistakes, tells them apart, and has a sentence for anything else."""

import contextlib
import math
import signal
import sys
import time
from itertools import combinations

import numpy as np
import pytest
import torch

from course_utils import comparison
from course_utils.comparison import Estimate, compare
from course_utils.exercises import checking
from course_utils.exercises.asking import (
    Choice,
    Experiment,
    Function,
    Number,
    Open,
    as_number,
    near,
)
from course_utils.exercises.questions import NOTEBOOKS, find, questions_of
from course_utils.exercises.running import Unreadable, run

ALL = {number: question for notebook in NOTEBOOKS for number, question in questions_of(notebook).items()}
each = pytest.mark.parametrize("number", ALL)


@pytest.fixture(autouse=True)
def own_record(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress"))


def known(question):
    """Return the right answer and the mistakes of a question, each with what it gets told."""
    if isinstance(question, Choice):
        wrong = [(option, text) for option, text in question.options.items() if option != question.answer]
        return [(question.answer, question.options[question.answer]), *wrong]
    right = question.right if isinstance(question, Function) else question.answer
    return [(right, question.because), *question.mistakes]


def values(question, given):
    """Return the numbers that an answer is told by."""
    if isinstance(question, Function):
        return question.measured(given)
    return tuple(given.values()) if isinstance(given, dict) else (given,)


def said(capsys, number, answer):
    """Return what `check` prints of an answer, on one line."""
    checking.check(number, answer)
    return " ".join(capsys.readouterr().out.split())


def plain(text):
    return " ".join(text.split())


@each
def test_the_answer_is_right_and_each_mistake_gets_its_own_message(number, capsys):
    question = ALL[number]
    if isinstance(question, Open):
        assert said(capsys, number, "I would keep the mean, I think.").startswith(f"{number} answered.")
        return
    (right, because), *mistakes = known(question)
    assert said(capsys, number, right) == plain(f"{number} right. {because}")
    for wrong, message in mistakes:
        assert said(capsys, number, wrong) == plain(f"{number} not yet. {message}")
    assert len({text for _, text in known(question)}) == len(known(question)) >= 4


@each
def test_no_two_known_answers_lie_within_tolerance(number):
    question = ALL[number]
    if isinstance(question, Choice | Open):
        return
    found = [values(question, given) for given, _ in known(question)]
    for one, other in combinations(found, 2):
        assert not near(one, other, 2 * question.tolerance)
        assert not near(other, one, 2 * question.tolerance)


def fails(*arguments, **keywords):
    raise KeyError("planted")


def leaves(*arguments, **keywords):
    sys.exit()


NONSENSE = (
    None,
    "nonsense",
    math.nan,
    math.inf,
    torch.ones(3),
    np.zeros((2, 2)),
    [1, 2],
    {},
    1j,
    True,
    "four words and no",
    fails,
    leaves,
    object,
)


@each
def test_nonsense_gets_a_sentence(number, capsys):
    for given in NONSENSE:
        words = said(capsys, number, given)
        assert words.startswith(
            (f"{number} cannot be judged: ", f"{number} not yet. ", f"{number} not attempted")
        )
        assert "right." not in words


@each
def test_untouched_says_so(number, capsys):
    space = {"check": checking.check}
    exec(ALL[number].cell(number), space)
    assert capsys.readouterr().out.startswith(f"{number} not attempted yet")


@each
def test_words_are_complete(number, capsys):
    question = ALL[number]
    assert question.stars in (1, 2, 3)
    assert 1 <= question.minutes <= 30
    told = isinstance(question, Choice) or question.because  # a choice tells with each option
    assert all((question.statement, *question.hints, told, question.solution))
    for call in (checking.hint, checking.solution):
        call(number)
        assert capsys.readouterr().out.startswith(number)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_exercises_begin_within_reach_and_one_is_open(notebook):
    questions = [*questions_of(notebook).values()]
    assert questions[0].stars == 1
    assert max(question.stars for question in questions) == 3
    assert any(isinstance(question, Open) for question in questions)
    assert len(questions) >= (8 if "01" <= notebook <= "07" else 6)


# The engine.


WORDS = {
    "statement": "s",
    "stars": 1,
    "minutes": 1,
    "hints": ("look", "step"),
    "because": "so",
    "solution": "s",
}


def number_question(**changes):
    return Number(**WORDS | {"answer": 0.5, "mistakes": ((2.0, "twice"),)} | changes)


@pytest.mark.parametrize(
    "given", [0.5, np.float32(0.5), np.array([0.5]), torch.tensor(0.5), torch.tensor([[0.5]]), 1 / 2]
)
def test_every_form_of_a_right_number_is_accepted(given):
    assert number_question().judge(given) == (True, "so")


def test_tolerance_is_relative_and_holds_on_both_sides():
    question = number_question(tolerance=0.1)
    assert [question.judge(x).right for x in (0.449, 0.451, 0.549, 0.551)] == [False, True, True, False]


def test_an_unknown_number_gets_the_first_hint():
    assert number_question().judge(7.0) == (False, "7 is not it. look")


def test_right_numbers_in_another_form_are_told_so():
    question = number_question(statement="of $\\log_{10}$", answer=0.2352, mistakes=((24.9, "far"),))
    said = [question.judge(x).words for x in (0.24, 0.2, 23.52, 0.2352 * math.log(10), 24.9)]
    rounded = "Near, but rounded: give three digits."
    assert said[:2] == [rounded, "0.2 is not it. look"]  # 0.2 is 15 % off
    assert said[2:4] == [
        "That is in per cent; give the number itself.",
        "That is a natural logarithm; the one to base 10 is asked for.",
    ]
    assert said[4] == "far"
    plain = number_question(answer=0.2352, mistakes=())
    assert plain.judge(0.2352 * math.log(10)).words == "0.5416 is not it. look"


def test_of_several_numbers_the_wrong_ones_are_named():
    answer = {"mean": 2.0, "std": 3.0, "rate": 4.0}
    question = Experiment(**WORDS, answer=answer, mistakes=(), tolerance=0.01)
    assert question.judge(answer).right
    assert question.judge(answer | {"std": 5.0}).words == "Not yet right: 'std'. look"
    wrong = answer | {"std": 5.0, "rate": 7.0}
    assert question.judge(wrong).words == "Not yet right: 'std', 'rate'. look"


def test_what_a_function_prints_is_not_shown_and_its_luck_is_always_the_same(capsys):
    def talks(x):
        print("secret")
        return torch.empty(()).uniform_(generator=torch.default_generator).item()

    before = torch.default_generator.get_state()
    assert run(lambda f: f(1), talks) == run(lambda f: f(1), talks)
    assert capsys.readouterr().out == ""
    assert torch.equal(before, torch.default_generator.get_state())


def endless(x):
    while True:
        pass


def stubborn(x):
    for _ in range(3):
        with contextlib.suppress(Exception):
            endless(x)


def deaf(x):
    with contextlib.suppress(BaseException):
        endless(x)
    endless(x)


@pytest.mark.parametrize("function", [endless, stubborn, deaf])
@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_an_endless_function_is_stopped(function, handler, monkeypatch):
    monkeypatch.setattr("course_utils.exercises.running.SECONDS", 0.1)
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(Unreadable, match=r"not ended after 0\.1 seconds"):
            run(lambda f: f(1), function)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_ends_in_time_is_not_interrupted_later(monkeypatch):
    monkeypatch.setattr("course_utils.exercises.running.SECONDS", 0.05)
    assert run(lambda f: f(1), lambda x: x) == 1
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass


def test_an_error_names_the_learners_line():
    def broken(x):
        y = x
        return y / 0

    line = broken.__code__.co_firstlineno + 2
    with pytest.raises(Unreadable, match=f'your line {line}, "return y / 0", raised ZeroDivisionError'):
        run(lambda f: f(1), broken)


@pytest.mark.parametrize("number", ["04.0", "04.99", "99.1", "", 4.3, None])
def test_an_unknown_exercise_gets_a_sentence(number, capsys):
    checking.check(number, 1)
    assert "exercises" in capsys.readouterr().out


def test_a_sentence_has_five_words():
    question = next(question for question in ALL.values() if isinstance(question, Open))
    assert question.judge("this has exactly five words").right is None
    with pytest.raises(Unreadable):
        question.judge("this has only four")


@pytest.mark.parametrize("given", [True, False, "1.0", 1j, None])
def test_what_python_takes_for_a_number_and_is_none(given):
    with pytest.raises(Unreadable, match=f"a number is expected; got {type(given).__name__}"):
        as_number(given)


@pytest.mark.parametrize(("level", "place"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_a_hint_beyond_the_last_is_the_last(level, place, capsys):
    checking.hint("04.1", level)
    assert " ".join(capsys.readouterr().out.split()) == f"04.1 {find('04.1').hints[place]}"


@pytest.mark.parametrize(
    ("done", "best"), [("tr", "read"), ("rt", "read"), ("ts", "solved"), ("srt", "solved"), ("t", "tried")]
)
def test_what_counts_is_the_best_that_was_done(done, best, capsys):
    act = {"t": lambda: checking.check("04.1", 77.0), "r": lambda: checking.solution("04.1")}
    act["s"] = lambda: checking.check("04.1", find("04.1").answer)
    for letter in done:
        act[letter]()
    capsys.readouterr()
    checking.progress()
    header, *lines = capsys.readouterr().out.splitlines()
    counts = next(line for line in lines if line.startswith("04")).split()
    assert dict(zip(header.split(), counts, strict=True))[best] == "1"


def test_progress_counts_solved_tried_and_read(capsys):
    for place in (1, 2, 3):
        checking.check(f"04.{place}", find(f"04.{place}").answer)
    for place, answer in ((4, 77.0), (5, 77.0), (6, ...)):
        checking.check(f"04.{place}", answer)
    checking.solution("04.8")
    checking.solution("04.1")  # it is solved
    capsys.readouterr()
    checking.progress()
    header, *lines = capsys.readouterr().out.splitlines()
    counts = next(line for line in lines if line.startswith("04")).split()
    wanted = ["04", "3", "2", "1", str(len(questions_of("04")) - 6)]
    assert dict(zip(header.split(), counts, strict=True)) == dict(
        zip(["notebook", "solved", "tried", "read", "open"], wanted, strict=True)
    )


def test_progress_counts_the_last_of_each_guess(capsys, monkeypatch):
    monkeypatch.setattr(comparison, "_guessed", {})
    for guess in (1.5, 5.0, 1.5):
        compare(("RMS", 1.0, Estimate(1.0, 0.1), guess), ("std", 1.0, Estimate(1.0, 0.1), 9.0))
        checking.check("04.1", ...)
    checking.progress()
    assert capsys.readouterr().out.splitlines()[-1] == "Guesses within a factor of two: 1 of 2."


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"[1]\n{}\n", b'["04.2", "solved"]\n{"half'])
def test_a_foreign_record_costs_nothing_else(content, capsys, tmp_path, monkeypatch):
    path = tmp_path / "record"
    path.write_bytes(content)
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    checking.check("04.1", find("04.1").answer)
    checking.progress()
    assert "04.1 right" in capsys.readouterr().out


def test_a_record_that_cannot_be_written_costs_nothing_else(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path))  # a folder
    checking.check("04.1", find("04.1").answer)
    checking.progress()
    assert "04.1 right" in capsys.readouterr().out
