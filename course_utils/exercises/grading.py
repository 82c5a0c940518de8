"""The clinic's grades: a diagnosis is held against the planted fault, a repair against a healthy twin.

Repairs are tried on networks that the learner has not seen. A wrong answer is met with the patient's own
numbers.
"""

import textwrap
from dataclasses import dataclass
from functools import cache

import pandas as pd
import torch

from course_utils.doctor import FAULTS
from course_utils.exercises.cases import CASES, Case, Repair
from course_utils.exercises.repairs import (
    case_of,
    changed,
    clinic_patient,
    faults_after,
    healthy_twin,
    repaired_by,
)
from course_utils.exercises.signs import Patient, examine

GRADED_SEEDS = (101, 102, 103)  # a repair must work on each of these fresh networks
NAMES = (*FAULTS, "healthy")
_TYPICAL = {case.fault: case for case in CASES}  # what each name means, and how to look for it


@cache
def _first_look(number: int) -> tuple[Patient, pd.DataFrame]:
    patient = clinic_patient(number)
    return patient, examine(patient)


def _clue(case: Case, patient: Patient, table: pd.DataFrame) -> str:
    return case.why if case.fault == "healthy" else case.sign(patient, table)[1]


def _about_diagnosis(number: int, fault: str, layer: str | None) -> str:
    """Return what is wrong with the diagnosis, "" if nothing."""
    case = case_of(number)
    right = {(case.fault, case.layer), *case.also}
    if fault not in {name for name, _ in right}:
        return _about_fault(case, fault, *_first_look(number))
    if fault == "healthy" or (fault, layer) in right:
        return ""
    return f'"{fault}" is right{_about_layer(case, layer, _first_look(number)[1])}'


def _about_fault(case: Case, fault: str, patient: Patient, table: pd.DataFrame) -> str:
    clue = _clue(case, patient, table)
    if fault == "healthy":
        return f"You called it healthy. {case.look} Measured: {clue}"
    present, words = _TYPICAL[fault].sign(patient, table)
    sentence = f'You named "{fault}", which means {_TYPICAL[fault].meaning}. Measured: {words}'
    if case.fault == "healthy":
        return f"{sentence} Is that a fault here? {case.look}"
    if clue == words:
        return f"{sentence} The column is right, its reading is not. {case.look}"
    verb = "That is there, but as a consequence" if present else "That is not what it takes"
    return f"{sentence} {verb}. {case.look} Measured: {clue}"


def _about_layer(case: Case, layer: str | None, table: pd.DataFrame) -> str:
    names = table["layer"].tolist()
    if layer is None:
        return ". In which layer does it begin?"
    if layer not in names:
        return f", but in which layer does it begin? {case.look}"
    columns = ["input_second_moment", "second_moment", "growth", "weight_std", "gradient_second_moment"]
    row = table.iloc[names.index(layer)]
    measured = ", ".join(f"{column} {row[column]:.2g}" for column in columns)
    where = "an earlier row" if names.index(case.layer) < names.index(layer) else "a later row"
    return f", but it begins in {where} than {layer}, which has {measured}. {case.look}"


def _judge(number: int, seed: int, repair: Repair) -> tuple[str, set[str]]:
    """Return what is wrong after a repair, "" if nothing, and what was sound and is changed."""
    case, patient = case_of(number), clinic_patient(number, seed)
    repaired = repaired_by(repair, patient)
    new, same = changed(patient.model, repaired.model), torch.equal(patient.inputs, repaired.inputs)
    if same and not new and repr(patient.model) == repr(repaired.model):
        words = f"Your repair changed nothing. {_clue(case, patient, examine(patient))}"
        return words * (case.fault != "healthy"), set()
    sound = new - changed(healthy_twin(number, seed).model, patient.model)
    return next(faults_after(patient, repaired, seed), ""), set() if case.rewires else sound


def _about_repair(number: int, repair: Repair | None) -> tuple[str, str]:
    """Return what is wrong with the repair, and a warning; "" for none."""
    if repair is None:
        return "No repair yet." * (case_of(number).fault != "healthy"), ""
    needless: set[str] = set()
    for seed in GRADED_SEEDS:
        wrong, more = _judge(number, seed, repair)
        if wrong:
            return wrong, ""
        needless |= more
    names = ", ".join(sorted(needless)[:3]) + ", ..." * (len(needless) > 3)
    return "", f"Warning: the repair also rewrote what was sound: {names}." * bool(needless)


@dataclass(frozen=True, repr=False)
class Grade:
    """Whether diagnosis, layer and repair are right, and what to say about them; print it."""

    number: int
    answered: bool
    passed: bool
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        verdict = "no answer yet" if not self.answered else "passed" if self.passed else "not yet"
        remarks = [textwrap.fill(f"- {remark}", 100, subsequent_indent="  ") for remark in self.remarks]
        return "\n".join([f"Patient {self.number}: {verdict}.", *remarks])

    __repr__ = __str__


def grade(
    number: int, *, fault: str | None = None, layer: str | None = None, repair: Repair | None = None
) -> Grade:
    """Check a diagnosis and a repair of patient `number`, on networks drawn from other seeds.

    fault: one of `diagnosis.FAULTS`, or "healthy"; None: no answer yet.
    layer: the first faulty layer as the table of `examine` names it; "" if healthy.
    repair: called as `repair(model, inputs)` with gradients off. It changes either in place, or returns a new
    model (what else it returns is ignored). A healthy patient needs none. Draws without a generator are the
    same at every call. What a repair raises is raised, with a note.

    Where two answers are defensible, both are right: a transposed weight is also a wrong fan, and misplaced
    gain begins at either end.
    Raises: ValueError for an unknown number, fault or layer; TypeError for a repair that cannot be called.
    """
    case = case_of(number)
    if fault is None:
        return Grade(number, False, False)
    if fault not in NAMES:
        raise ValueError(f"fault must be one of {', '.join(map(repr, NAMES))}; got {fault!r}")
    if repair is not None and not callable(repair):
        raise TypeError(f"repair must be a function of (model, inputs), or None; got {type(repair).__name__}")
    names = [*_first_look(number)[1]["layer"]]
    names += sorted({"", *(name for _, name in case.also)} - {*names})
    if layer is not None and layer not in names:
        raise ValueError(f"layer must be one of {', '.join(map(repr, names))}; got {layer!r}")
    wrong, warning = _about_repair(number, repair)
    faults = [remark for remark in (_about_diagnosis(number, fault, layer), wrong) if remark]
    return Grade(number, True, not faults, (*faults, *filter(None, [warning])))


def hint(number: int, level: int = 1) -> str:
    """Return where to look (level 1), or what is to be seen there, in the numbers of seed 0 (level 2).

    Raises: ValueError for another number or level.
    """
    if level not in (1, 2):
        raise ValueError(f"level must be 1 or 2; got {level!r}")
    case = case_of(number)
    return case.look if level == 1 else f"Measured: {_clue(case, *_first_look(number))}"


def solution(number: int) -> Case:
    """Return the case of patient `number`; print it: the truth, why it is so, and a repair.

    Raises: ValueError for another number.
    """
    return case_of(number)
