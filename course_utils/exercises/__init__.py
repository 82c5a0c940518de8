"""Exercises that answer: questions with checks for each notebook, and the clinic of notebook 20."""

from course_utils.exercises.checking import check, hint, progress, solution

__all__ = ["check", "hint", "progress", "solution"]
