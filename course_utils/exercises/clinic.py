"""The clinic: networks with a planted fault to diagnose and repair, and grades for both."""

import textwrap
from dataclasses import dataclass
from functools import cache

import pandas as pd

from course_utils.checks import check_name
from course_utils.exercises.cases import Case, Repair
from course_utils.exercises.repairs import PATIENTS, about_repair, clinic_patient, clue, solution
from course_utils.exercises.signs import MEANINGS, Patient, examine

__all__ = ["PATIENTS", "clinic_patient", "examine", "grade", "hint", "solution"]


@cache
def _first_look(number: int) -> tuple[Patient, pd.DataFrame]:
    patient = clinic_patient(number)
    return patient, examine(patient)


def _about_diagnosis(number: int, fault: str, layer: str | None) -> str:
    """Return what is wrong with the diagnosis, "" if nothing."""
    case = solution(number)
    if fault not in dict(case.answers):
        return _about_fault(case, fault, *_first_look(number))
    if fault == "healthy" or (fault, layer) in case.answers:
        return ""
    return f'"{fault}" is right{_about_layer(case, layer, _first_look(number)[1])}'


def _about_fault(case: Case, fault: str, patient: Patient, table: pd.DataFrame) -> str:
    seen = clue(patient, table)
    if fault == "healthy":
        return f"You called it healthy. {case.look} Measured: {seen}"
    meaning, sign = MEANINGS[fault]
    present, words = sign(patient, table)
    sentence = f'You named "{fault}", which means {meaning}. Measured: {words}'
    if case.fault == "healthy":
        return f"{sentence} Is that a fault here? {case.look}"
    if seen == words:
        return f"{sentence} The column is right, its reading is not. {case.look}"
    verb = "That is there, but as a consequence" if present else "That is not what it takes"
    return f"{sentence} {verb}. {case.look} Measured: {seen}"


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


@dataclass(frozen=True, repr=False)
class Grade:
    """Whether diagnosis, layer and repair are right, None without an answer, and what to say; print it."""

    number: int
    passed: bool | None = None
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        verdict = {None: "no answer yet", True: "passed", False: "not yet"}[self.passed]
        remarks = [textwrap.fill(f"- {remark}", 100, subsequent_indent="  ") for remark in self.remarks]
        return "\n".join([f"Patient {self.number}: {verdict}.", *remarks])

    __repr__ = __str__


def grade(
    number: int, *, fault: str | None = None, layer: str | None = None, repair: Repair | None = None
) -> Grade:
    """Check a diagnosis and a repair of patient `number`, on networks drawn from other seeds.

    fault: one of `doctor.FAULTS`, or "healthy"; None: no answer yet.
    layer: the first faulty layer as the table of `examine` names it; "" if healthy.
    repair: called as `repair(model, inputs)` with gradients off. It changes either in place, or returns a new
    model (what else it returns is ignored). A healthy patient needs none. Draws without a generator are the
    same at every call. What a repair raises is raised, with a note.

    Where two answers are defensible, both are right: a transposed weight is also a wrong fan, and misplaced
    gain begins at either end.
    Raises: ValueError for an unknown number, fault or layer; TypeError for a repair that cannot be called.
    """
    case = solution(number)
    if fault is None:
        return Grade(number)
    layers = [*_first_look(number)[1]["layer"]]
    layers += sorted({"", *(name for _, name in case.answers)} - {*layers})
    check_name("fault", fault, [*MEANINGS, "healthy"])
    check_name("layer", layer or "", layers)
    if repair is not None and not callable(repair):
        raise TypeError(f"repair must be a function of (model, inputs), or None; got {type(repair).__name__}")
    wrong, warning = about_repair(number, repair)
    faults = [remark for remark in (_about_diagnosis(number, fault, layer), wrong) if remark]
    return Grade(number, not faults, (*faults, *filter(None, [warning])))


def hint(number: int, level: int = 1) -> str:
    """Return where to look (level 1), or what is to be seen there, in the numbers of seed 0 (level 2).

    Raises: ValueError for another number or level.
    """
    if level not in (1, 2):
        raise ValueError(f"level must be 1 or 2; got {level!r}")
    return solution(number).look if level == 1 else f"Measured: {clue(*_first_look(number))}"
