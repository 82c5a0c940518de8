"""The clinic: networks with a planted fault to diagnose and repair."""

from course_utils.exercises.grading import grade, hint
from course_utils.exercises.repairs import PATIENTS, clinic_patient, solution
from course_utils.exercises.signs import examine

__all__ = ["PATIENTS", "clinic_patient", "examine", "grade", "hint", "solution"]
