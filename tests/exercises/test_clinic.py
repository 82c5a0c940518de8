"""The clinic's grades: a wrong diagnosis is met with the patient's numbers, a right one with nothing."""

import re

import pytest
import torch

from course_utils.doctor import FAULTS
from course_utils.exercises.clinic import PATIENTS, grade, hint, solution

LAST = PATIENTS[-1]

# ---- Wrong diagnoses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", PATIENTS)
def test_every_wrong_name_is_met_with_the_numbers_of_the_patient(number: int):
    truth, sentences = solution(number), set()
    wrong = {*FAULTS, "healthy"} - {*dict(truth.answers)}
    for fault in wrong:
        (sentence, *_) = grade(number, fault=fault, layer="").remarks
        named = "You called it healthy" if fault == "healthy" else f'You named "{fault}"'
        assert sentence.startswith(named)
        assert re.search(r"Measured: .*(\d|none)", sentence) or "column" in sentence
        assert "a factor of nan" not in sentence
        assert truth.fault != "healthy" or truth.why not in sentence
        sentences.add(sentence)
    assert len(sentences) == len(wrong)


WRONG_NAMES = [
    (1, "vanishing gradient", "That is there, but as a consequence. Compare second_moment from row to row"),
    (1, "vanishing gradient", "second_moment goes from 0.0064 at 0 to .* a factor of 0.0064 per layer"),
    (1, "exploding signal", "The column is right, its reading is not"),
    (2, "vanishing signal", "That is there, but as a consequence. .* the largest value of dead is 1, at 4"),
    (3, "vanishing signal", r"is 0.8 at 0 \(before relu\), 1.0 at 2 to 30 \(before relu\), 1.0 at 32\."),
    (4, "zero layer", "the smallest weight_std is 0, at 1.branch.2. Is that a fault here"),
    (5, "vanishing gradient", "gradient_second_moment is 0 at hidden. That is there, but as a consequence"),
    (6, "vanishing signal", "That is not what it takes"),
    (7, "large initial loss", "That is there, but as a consequence. .* mean 128.36 and second moment"),
    (12, "exploding signal", "That is not what it takes. .* 1 in 3.branch.3.weight"),
    (15, "exploding gradient", "That is there, but as a consequence. .* the largest value of saturated is"),
    (17, "exploding gradient", "That is there, but as a consequence"),
    (3, "healthy", "You called it healthy"),
]


@pytest.mark.parametrize(("number", "fault", "sentence"), WRONG_NAMES)
def test_a_wrong_name_is_told_cause_from_consequence(number: int, fault: str, sentence: str):
    result = grade(number, fault=fault, layer="")
    assert not result.passed
    assert re.search(sentence, result.remarks[0]), result.remarks[0]


def test_a_right_diagnosis_with_a_wrong_repair_does_not_pass_nor_the_reverse():
    truth = solution(16)
    wrong_fault = grade(16, fault="missing gain", layer="6", repair=truth.repair)
    wrong_layer = grade(16, fault="double init", layer="4", repair=truth.repair)
    assert not (wrong_fault.passed)
    assert not (wrong_layer.passed)
    assert len(wrong_fault.remarks) == len(wrong_layer.remarks) == 1
    assert '"double init" is right, but it begins in a later row than 4, which has' in wrong_layer.remarks[0]
    assert "in an earlier row than 8" in grade(16, fault="double init", layer="8").remarks[0]
    assert "In which layer does it begin?" in grade(16, fault="double init").remarks[0]
    assert "but in which layer" in grade(16, fault="double init", layer="").remarks[0]
    assert grade(16, fault="double init", layer="6").remarks == ("No repair yet.",)
    assert (
        grade(13, fault="wrong fan").remarks[0].startswith('"wrong fan" is right.')
    )  # the name that was given


def test_unanswered_patients_are_neither_right_nor_wrong():
    result = grade(1)
    assert str(result) == repr(result) == "Patient 1: no answer yet."
    assert result.passed is None


# ---- Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, f"1 to {LAST}; got 0", {"number": 0}),
        (ValueError, f"1 to {LAST}; got {LAST + 1}", {"number": LAST + 1, "fault": "dead"}),
        (ValueError, "^fault .*'saturated', .*'healthy'; got 'exploding'", {"fault": "exploding"}),
        (
            ValueError,
            "^layer must be one of '0', '2', .*''; got 'layer 3'",
            {"number": 2, "fault": "dead", "layer": "layer 3"},
        ),
        (ValueError, "got 'inputs'", {"number": 2, "fault": "dead", "layer": "inputs"}),
        (TypeError, r"function of \(model, inputs\), or None; got Tensor", {"repair": torch.zeros(2)}),
    ],
)
def test_errors_say_what_was_passed_and_what_is_expected(error, message: str, arguments: dict):
    arguments = {"number": 1, "fault": "dead"} | arguments
    with pytest.raises(error, match=message):
        grade(arguments.pop("number"), **arguments)


# ---- Hints and solutions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", PATIENTS)
def test_hints_grow_more_concrete_and_the_solution_shows_its_source(number: int):
    truth = solution(number)
    assert hint(number) != hint(number, 2)
    assert truth.fault not in hint(number)
    assert hint(number, 2).startswith("Measured: ")
    assert str(truth).startswith(truth.fault)
    assert truth.why in str(truth)
    assert re.search(r"\n\ndef repair\(model, inputs\):\n    \w.*\Z", str(truth), re.DOTALL)
    assert "look=" not in str(truth)


def test_there_are_two_levels_of_hints():
    with pytest.raises(ValueError, match="1 or 2; got 3"):
        hint(1, 3)
