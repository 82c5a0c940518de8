"""The patients of the clinic: small networks with a planted fault, drawn afresh from any seed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from course_utils.exercises.cases import CASES, Case
from course_utils.exercises.signs import Patient

PATIENTS = range(1, len(CASES) + 1)


@contextmanager
def own_stream(seed: int) -> Iterator[None]:
    """Let what draws without a generator draw from `seed`, and put torch's random state back."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def case_of(number: int) -> Case:
    """Return the case of patient `number`. Raises: ValueError for another number."""
    if number not in PATIENTS:
        raise ValueError(f"patients have the numbers {PATIENTS[0]} to {PATIENTS[-1]}; got {number!r}")
    return CASES[number - 1]


def healthy_twin(number: int, seed: int) -> Patient:
    """Return the patient as it was before the fault. Raises: ValueError for another number."""
    case, generator = case_of(number), torch.Generator().manual_seed(seed)
    with own_stream(seed), torch.no_grad():
        model = case.network(generator)
        return Patient(number, case.complaint, model, *case.task(generator))


def clinic_patient(number: int, seed: int = 0) -> Patient:
    """Return a fresh network with the fault of patient `number`, one of PATIENTS, drawn from `seed`.

    Raises: ValueError for another number.
    """
    patient = healthy_twin(number, seed)
    with torch.no_grad():
        case_of(number).plant(patient.model, patient.inputs, torch.Generator().manual_seed(seed + 10**6))
    return patient
