"""The patients, drawn afresh from any seed, and what repairs do to them, held against their healthy twins."""

import copy
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pandas as pd
import torch
from torch import Tensor, nn

from course_utils.exercises import signs
from course_utils.exercises.cases import CASES, Case, Repair
from course_utils.exercises.running import seeded
from course_utils.exercises.signs import MEANINGS, SPREAD, Patient, examine, weighted

PATIENTS = range(1, len(CASES) + 1)
GRADED_SEEDS = (101, 102, 103)  # a repair must work on each of these fresh networks
STEPS, LEARNING_RATE = 50, 2e-3  # Adam on the whole batch
TRAINED = 0.7  # the loss after training; healthy twins get there in half of the steps
EXACT, ROUGH = 1.25, 2.0  # the factor on the twin's weight_std: where it is all that is wrong, and elsewhere
ALL_IN_STD = {"transposed weight", "misplaced gain"}
# The repair may change activations, connections and inputs, so that the model that it leaves is measured.
REWIRED = {"vanishing gradient", "exploding gradient", "input scale"}


def solution(number: int) -> Case:
    """Return the case of patient `number`; print it: the truth, why it is so, and a repair.

    Raises: ValueError for another number.
    """
    if number not in PATIENTS:
        raise ValueError(f"patients have the numbers {PATIENTS[0]} to {PATIENTS[-1]}; got {number!r}")
    return CASES[number - 1]


def healthy_twin(number: int, seed: int) -> Patient:
    """Return the patient as it was before the fault. Raises: as `solution`."""
    case, generator = solution(number), torch.Generator().manual_seed(seed)
    with seeded(seed + 10**6), torch.no_grad():
        return Patient(number, case.complaint, *case.network(generator))


def clinic_patient(number: int, seed: int = 0) -> Patient:
    """Return a fresh network with the fault of patient `number`, one of PATIENTS, drawn from `seed`.

    Raises: as `solution`.
    """
    patient = healthy_twin(number, seed)
    with torch.no_grad():
        solution(number).plant(patient.model, patient.inputs, torch.Generator().manual_seed(seed + 10**6))
    return patient


def repaired_by(repair: Repair, patient: Patient) -> Patient:
    """Return the patient after the learner's repair of a copy of it. What the repair raises gets a note."""
    model, inputs = copy.deepcopy(patient.model), patient.inputs.clone()
    try:
        with torch.no_grad(), seeded(7):
            returned = repair(model, inputs)
    except Exception as error:
        where = f"repair(model, inputs) on patient {patient.number}"
        error.add_note(f"This was raised by {where}, under no_grad.")
        raise
    model = (returned if isinstance(returned, nn.Module) else model).train()  # batch norm is part of a fault
    return replace(patient, model=model, inputs=inputs)


def clue(patient: Patient, table: pd.DataFrame) -> str:
    """Return what shows the patient's fault, in its numbers."""
    case = solution(patient.number)
    return case.why if case.fault == "healthy" else MEANINGS[case.fault][1](patient, table)[1]


def about_repair(number: int, repair: Repair | None) -> tuple[str, str]:
    """Return what is wrong with the repair, and a warning; "" for none."""
    if repair is None:
        return "No repair yet." * (solution(number).fault != "healthy"), ""
    needless: set[str] = set()
    for seed in GRADED_SEEDS:
        wrong, more = _judge(number, seed, repair)
        if wrong:
            return wrong, ""
        needless |= more
    names = ", ".join(sorted(needless)[:3]) + ", ..." * (len(needless) > 3)
    return "", f"Warning: the repair also rewrote what was sound: {names}." * bool(needless)


def _judge(number: int, seed: int, repair: Repair) -> tuple[str, set[str]]:
    """Return what is wrong after a repair, "" if nothing, and what was sound and is changed."""
    case, patient = solution(number), clinic_patient(number, seed)
    repaired = repaired_by(repair, patient)
    new, same = _changed(patient.model, repaired.model), torch.equal(patient.inputs, repaired.inputs)
    if same and not new and repr(patient.model) == repr(repaired.model):
        words = f"Your repair changed nothing. {clue(patient, examine(patient))}"
        return words * (case.fault != "healthy"), set()
    sound = new - _changed(healthy_twin(number, seed).model, patient.model)
    return next(faults_after(patient, repaired, seed), ""), set() if case.fault in REWIRED else sound


def _changed(before: nn.Module, after: nn.Module) -> set[str]:
    """Return the names of the parameters and buffers of `before` that are not the same in `after`."""
    old, new = before.state_dict(), after.state_dict()
    return {name for name in old if name not in new or not torch.equal(old[name], new[name])}


def faults_after(patient: Patient, repaired: Patient, seed: int) -> Iterator[str]:
    """Yield what is forbidden or still wrong after the repair, causes before consequences."""
    case = solution(patient.number)
    if forbidden := _forbidden(patient, repaired):
        yield forbidden
        return
    if case.fault not in REWIRED:  # what else was done to the model than change its parameters has no effect
        fresh = copy.deepcopy(patient.model)
        fresh.load_state_dict(repaired.model.state_dict())
        repaired = replace(patient, model=fresh)
    table, twin = examine(repaired), _twin_rows(patient.number, seed)
    rows = weighted(table)
    first, wanted = rows.iloc[0], twin.iloc[0]
    yield from _seen(repaired, table, signs.not_finite, signs.identical)
    if case.fault not in {*REWIRED, "healthy"}:
        yield from _wrong_weights(EXACT if case.fault in ALL_IN_STD else ROUGH, rows, twin)
    ratio = first["second_moment"] / wanted["second_moment"]
    if not (0.25 < ratio < 4 and first["varies"] > wanted["varies"] / 2):  # as with folded-in mean and scale
        for words in _seen(repaired, table, signs.input_scale):
            yield f"{words[:-1]}, and the first layer does not make up for it."
    yield from _seen(repaired, table, signs.dead, signs.saturated)
    yield from _spread_too_far(rows, twin)
    yield from _seen(repaired, table, signs.initial_loss)
    yield from _untrained(repaired)


def _forbidden(patient: Patient, repaired: Patient) -> str:
    """Return what may not be done to this patient, and forbids to measure it; "" if nothing."""
    case, models = solution(patient.number), (patient.model, repaired.model)
    if case.fault != "input scale" and not torch.equal(patient.inputs, repaired.inputs):
        return "You changed the inputs. Here they are sound: repair the model."
    if not _same_up_to_scale(patient.inputs, repaired.inputs):
        return "Inputs may be shifted and scaled, all examples alike; yours lost what they tell apart."
    if case.fault in REWIRED:
        old, new = (Counter(tuple(p.shape) for p in model.parameters() if p.ndim > 1) for model in models)
        gone = [*(old - new)]
        return f"The repaired network must keep all weights; one of shape {gone[0]} is gone." if gone else ""
    old, new = ((repr(m), {name: x.shape for name, x in m.state_dict().items()}) for m in models)
    words = "Only the values of parameters may change here: keep the layers and activations as they are."
    return words if old != new else ""


def _same_up_to_scale(x: Tensor, y: Tensor) -> bool:
    if torch.equal(x, y) or x.shape != y.shape:
        return torch.equal(x, y)
    standard = [(z - z.mean(0)) / z.std(0) for z in (x.double(), y.double())]
    return torch.allclose(*standard, atol=0.01)


@cache
def _twin_rows(number: int, seed: int) -> pd.DataFrame:
    return weighted(examine(healthy_twin(number, seed)))


def _seen(repaired: Patient, table: pd.DataFrame, *looked_for: signs.Sign) -> Iterator[str]:
    for sign in looked_for:
        present, words = sign(repaired, table)
        if present:
            yield f"After your repair {words}"


def _wrong_weights(limit: float, rows: pd.DataFrame, twin: pd.DataFrame) -> Iterator[str]:
    """Compare weight_std with the twin's, but where a norm follows; the last layer's may be smaller."""
    for (i, row), (_, wanted) in zip(rows.iterrows(), twin.iterrows(), strict=True):
        std, target = row["weight_std"], wanted["weight_std"]
        low, high = (0, ROUGH * target) if i == len(rows) - 1 else (target / limit, target * limit)
        if row["activation"] != "norm" and not low <= std <= high:
            words = f"weight_std is {std:.2g} in layer {row['layer']}; a healthy twin has {target:.2g}"
            yield f"After your repair {words}, {math.sqrt(row['fan_in']) * target:.2g} / sqrt(fan_in)."


def _spread(values: pd.Series) -> float:
    if not values.max() > 0:
        return 1.0  # behind a last layer of zeros no gradient is yet to be seen
    return values.max() / values.min() if values.min() > 0 else math.inf


def _spread_too_far(rows: pd.DataFrame, twin: pd.DataFrame) -> Iterator[str]:
    for column in ("second_moment", "gradient_second_moment"):
        values, healthy = rows[column].iloc[:-1], twin[column].iloc[:-1]
        spread, allowed = _spread(values), max(SPREAD, 10 * _spread(healthy))
        if spread > allowed:
            high, low = rows["layer"][values.idxmax()], rows["layer"][values.idxmin()]
            words = f"differs by a factor of {spread:.2g} between {high} and {low}"
            yield f"After your repair {column} {words}; at most {allowed:.2g} is healthy here."


def trained(patient: Patient, steps: int = STEPS) -> tuple[float, nn.Module]:
    """Train a copy until its loss is below TRAINED, `steps` at most; return the last loss and the copy."""
    model = copy.deepcopy(patient.model).requires_grad_()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(patient.inputs), patient.targets)
        if loss < TRAINED:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item(), model


def _untrained(repaired: Patient) -> Iterator[str]:
    loss, after = trained(repaired)
    weights = {name: p for name, p in repaired.model.named_parameters() if p.ndim > 1}
    idle = [name for name, p in weights.items() if torch.equal(p, after.get_parameter(name))]
    if solution(repaired.number).fault in REWIRED and idle:
        yield f"All weights must take part; training left {idle[0]} as it was."
    if not loss < TRAINED:
        yield f"After {STEPS} steps of training the loss is {loss:.2f}; a healthy twin's is below {TRAINED}."
