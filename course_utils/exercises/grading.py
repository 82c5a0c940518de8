"""The clinic: small networks with a planted fault of initialization, to be diagnosed and repaired.

`clinic_patient` draws a network, `examine` measures it, `grade` checks a diagnosis and a repair. A diagnosis
is held against the fault that was planted, a repair against a healthy twin, on networks that the learner has
not seen. A wrong answer is met with the patient's own numbers.
"""

import copy
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import pandas as pd
import torch
from torch import Tensor, nn

from course_utils.doctor.diagnosis import FAULTS, diagnose
from course_utils.exercises.patients import (
    CLASSES,
    Case,
    Patient,
    Repair,
    case_of,
    clinic_patient,
    healthy_twin,
    own_stream,
)

GRADED_SEEDS = (101, 102, 103)  # a repair must work on each of these fresh networks
STEPS, LEARNING_RATE = 50, 2e-3  # Adam on the whole batch

# What a repaired network must keep.
FAR = 100.0  # the second moments of signal and gradient in the layers, from one end to the other
SHARED = 0.5  # the largest part of a layer's weights that its units may have in common
DEAD = SATURATED = 0.6  # shares of a layer's units and outputs
EXCESS_LOSS = 2.5  # above ln K, before training
TRAINED = 0.7  # the loss after training; healthy twins get there in half of the steps
EXACT, ROUGH = 1.25, 2.0  # the factor on the twin's weight_std: in _EXACT_IN, where it is all, and elsewhere
_EXACT_IN = {"misplaced gain", "transposed weight"}


def examine(patient: Patient) -> pd.DataFrame:
    """Return `diagnose`'s table without wanted_std and weight_ratio; the column fault is left to you.

    `plotting.plot_diagnosis` draws it.
    """
    table = diagnose(patient.model, patient.inputs, patient.targets).table
    return table.drop(columns=["wanted_std", "weight_ratio"]).assign(fault="")


# ---- Measurements in words ---------------------------------------------------------------------------------


def _weighted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of linear and convolutional layers, in order."""
    return table[table["fan_in"].notna()].reset_index(drop=True)


def _loss(patient: Patient) -> float:
    model = copy.deepcopy(patient.model)  # whose running means a pass may change
    with torch.no_grad():
        return nn.functional.cross_entropy(model(patient.inputs), patient.targets).item()


def _in_common(weight: Tensor) -> float:
    """Return which part of the weights' second moment lies in their mean over the units, in either layout."""
    matrix = weight.detach().double().flatten(1).nan_to_num()
    means = max(matrix.mean(dim).square().mean().item() for dim in (0, 1))
    return means / max(matrix.square().mean().item(), 1e-300)


Sign = Callable[[Patient, pd.DataFrame], tuple[bool, str]]  # whether it is there, and the numbers in words


def _drift(column: str, grows: bool) -> Sign:
    """Follow the second moment of the signal, or of the gradient on its way back, from layer to layer."""

    def sign(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
        back = column == "gradient_second_moment"
        hidden = _weighted(table).iloc[:-1].iloc[:: -1 if back else 1]
        names, values = hidden["layer"].tolist(), hidden[column].tolist()
        if values[0] == 0:
            return not grows, f"{column} is 0 at {names[0]}."
        factor = values[-1] / values[0]
        words = f"{column} goes from {values[0]:.2g} at {names[0]} to {values[-1]:.2g} at {names[-1]}"
        if not math.isnan(factor):
            words += f", a factor of {factor ** (1 / max(len(values) - 1, 1)):.2g} per layer"
        return factor > FAR if grows else factor < 1 / FAR, f"{words}{' on its way back' * back}."

    return sign


def _share(column: str, limit: float) -> Sign:
    def sign(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
        if table[column].isna().all():
            return False, f"the column {column} is empty."
        row = table.loc[table[column].idxmax()]
        return row[column] > limit, f"the largest value of {column} is {row[column]:.2g}, at {row['layer']}."

    return sign


def _law(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    rows, words = _weighted(table), []
    scaled = [f"{x:.1f}" for x in rows["weight_std"] * rows["fan_in"] ** 0.5]
    runs = groupby(zip(scaled, rows["activation"], rows["layer"], strict=True), key=lambda row: row[:2])
    for (value, activation), run in runs:
        layers = [layer for _, _, layer in run]
        where = layers[0] if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
        words.append(f"{value} at {where}" + f" (before {activation})" * bool(activation))
    return False, f"weight_std * sqrt(fan_in) is {', '.join(words)}."


def _not_finite(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    bad = {name: int((~p.isfinite()).sum()) for name, p in patient.model.named_parameters()}
    bad = {name: count for name, count in bad.items() if count}
    words = ", ".join(f"{count} in {name}" for name, count in bad.items()) or "none in any parameter"
    return bool(bad), f"the entries that are NaN or infinite: {words}."


def _input_scale(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    if not patient.inputs.is_floating_point():
        return False, "the inputs are indices of tokens and have no scale."
    mean, moment = patient.inputs.mean().item(), patient.inputs.square().mean().item()
    return (
        not 1e-3 < moment < 10 or mean**2 > moment / 2,
        f"the inputs have mean {mean:.2f} and second moment {moment:.2g}.",
    )


def _identical(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    weights = {name: p for name, p in patient.model.named_parameters() if p.ndim > 1}
    share, name = max((_in_common(p), name) for name, p in weights.items())
    words = (
        f"{share:.0%} of the weights' second moment in {name} is common to all units, the most of any layer."
    )
    return share > SHARED, words


def _zero(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    row = table.loc[table["weight_std"].idxmin()]
    return row["weight_std"] == 0, f"the smallest weight_std is {row['weight_std']:.2g}, at {row['layer']}."


def _initial_loss(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    loss = _loss(patient)
    return loss > math.log(CLASSES) + EXCESS_LOSS, f"the loss before training is {loss:.3g}; ln 10 is 2.3."


# What a name claims, and how to measure whether it is so: as a cause, or as a consequence of another fault.
_SIGNS: dict[str, tuple[str, Sign]] = {
    "not finite": ("a parameter or an input that is NaN or infinite", _not_finite),
    "input scale": ("inputs that are far from mean 0 and second moment 1", _input_scale),
    "identical units": ("units of one layer with the same weights", _identical),
    "zero layer": ("a layer of zeros that is not the last, of the network or of a branch", _zero),
    "misplaced gain": ("a ReLU's gain of 1.4 in front of no ReLU, and missing in front of one", _law),
    "missing gain": ("weight_std * sqrt(fan_in) of 1 in front of ReLUs, which want 1.4", _law),
    "wrong fan": ("weights with the std gain / sqrt(n), where n is not the fan_in", _law),
    "transposed weight": ("a matrix kept (in, out) with the std gain / sqrt(fan_out)", _law),
    "double init": ("a layer whose weight_std is gain² / fan_in", _law),
    "dead": ("ReLUs that are 0 on the whole batch", _share("dead", DEAD)),
    "exploding signal": (
        "weights so large that second_moment grows without limit",
        _drift("second_moment", True),
    ),
    "vanishing signal": (
        "weights so small that second_moment falls towards 0",
        _drift("second_moment", False),
    ),
    "saturated": ("outputs of tanh or sigmoid at their bounds", _share("saturated", SATURATED)),
    "exploding gradient": (
        "gradients that grow on their way back while the signal is steady",
        _drift("gradient_second_moment", True),
    ),
    "vanishing gradient": (
        "gradients that fall on their way back while the signal is steady",
        _drift("gradient_second_moment", False),
    ),
    "large initial loss": ("a last layer alone that makes the loss large", _initial_loss),
}


def _clue(patient: Patient, table: pd.DataFrame) -> str:
    """Return what shows the truth, in the patient's numbers."""
    case = case_of(patient.number)
    return case.why if case.fault == "healthy" else _SIGNS[case.fault][1](patient, table)[1]


def _on_fault(patient: Patient, table: pd.DataFrame, fault: str) -> str:
    """Return why the diagnosis `fault` is wrong."""
    case, clue = case_of(patient.number), _clue(patient, table)
    if fault == "healthy":
        return f"You called it healthy. {case.look} Measured: {clue}"
    meaning, sign = _SIGNS[fault]
    present, words = sign(patient, table)
    sentence = f'You named "{fault}", which means {meaning}. Measured: {words}'
    if case.fault == "healthy":
        return f"{sentence} Is that a fault here? {case.look}"
    if clue == words:
        return f"{sentence} The column is right, its reading is not. {case.look}"
    verb = "That is there, but as a consequence" if present else "That is not what it takes"
    return f"{sentence} {verb}. {case.look} Measured: {clue}"


def _on_layer(patient: Patient, table: pd.DataFrame, layer: str) -> str:
    """Return why the layer is wrong, given that the fault is right."""
    case, names = case_of(patient.number), table["layer"].tolist()
    if layer not in {*table["layer"]}:
        return f'"{case.fault}" is right, but in which layer does it begin? {case.look}'
    row, earlier = table.iloc[names.index(layer)], names.index(case.layer) < names.index(layer)
    measured = ", ".join(
        f"{column} {row[column]:.2g}"
        for column in (
            "input_second_moment",
            "second_moment",
            "growth",
            "weight_std",
            "gradient_second_moment",
        )
    )
    where = "in an earlier row" if earlier else "in a later row"
    return f'"{case.fault}" is right, but it begins {where} than {layer}, which has {measured}. {case.look}'


# ---- Repairs -----------------------------------------------------------------------------------------------


def _apply(repair: Repair, patient: Patient) -> Patient:
    """Return the patient after the learner's repair of a copy of it."""
    model, inputs = copy.deepcopy(patient.model), patient.inputs.clone()
    try:
        with torch.no_grad(), own_stream(7):
            returned = repair(model, inputs)
    except Exception as error:
        error.add_note(
            f"This was raised by repair(model, inputs) on patient {patient.number}, under no_grad."
        )
        raise
    model = (returned if isinstance(returned, nn.Module) else model).train()  # batch norm is part of a fault
    return Patient(patient.number, patient.complaint, model, inputs, patient.targets)


def _changed(before: nn.Module, after: nn.Module) -> set[str]:
    """Return the names of the parameters and buffers of `before` that are not the same in `after`."""
    old, new = before.state_dict(), after.state_dict()
    return {name for name in old if name not in new or not torch.equal(old[name], new[name])}


def _measurable(patient: Patient, repaired: Patient) -> Patient | str:
    """Return the repaired patient as it is to be measured, or what forbids to measure it.

    Where only parameters may change, they are put into a fresh model with the patient's own inputs: whatever
    else a repair does to the model is without effect. Elsewhere all parameters must still be there.
    """
    models = patient.model, repaired.model
    if not torch.equal(patient.inputs, repaired.inputs):
        if case_of(patient.number).fault != "input scale":
            return "You changed the inputs. Here they are sound: repair the model."
        if not _same_up_to_scale(patient.inputs, repaired.inputs):
            return "Inputs may be shifted and scaled, all examples alike; yours lost what they tell apart."
    if case_of(patient.number).rewires:
        before, after = ([tuple(p.shape) for p in model.parameters() if p.ndim > 1] for model in models)
        lost = [shape for shape in before if after.count(shape) < before.count(shape)]
        if lost:
            return f"The repaired network must keep all weights; one of shape {lost[0]} is gone."
        return repaired
    before, after = ({name: x.shape for name, x in model.state_dict().items()} for model in models)
    if before != after or repr(patient.model) != repr(repaired.model):
        return "Only the values of parameters may change here: keep the layers and activations as they are."
    model = copy.deepcopy(patient.model)
    model.load_state_dict(repaired.model.state_dict())
    return Patient(patient.number, patient.complaint, model, patient.inputs, patient.targets)


def _same_up_to_scale(x: Tensor, y: Tensor) -> bool:
    if x.shape != y.shape or not x.is_floating_point():
        return x.shape == y.shape and torch.equal(x, y)
    standard = [(z - z.mean(0)) / z.std(0) for z in (x.double(), y.double())]
    return torch.allclose(*standard, atol=0.01)


def _train(patient: Patient, steps: int = STEPS) -> tuple[float, nn.Module]:
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


@cache
def _healthy_rows(number: int, seed: int) -> pd.DataFrame:
    return _weighted(examine(healthy_twin(number, seed)))


def _repair_faults(patient: Patient, repaired: Patient, seed: int) -> Iterator[str]:
    """Yield what is still wrong after the repair, causes before consequences."""
    case = case_of(patient.number)
    table, twin = examine(repaired), _healthy_rows(patient.number, seed)
    for fault in ("not finite", "identical units"):
        present, words = _SIGNS[fault][1](repaired, table)
        if present:
            yield f"After your repair {words}"
            return
    rows = _weighted(table)
    if not (case.rewires or case.fault == "healthy"):
        yield from _wrong_weights(patient, rows, twin)
    present, words = _input_scale(repaired, table)
    if present and not _standardized(rows, twin):
        yield f"After your repair {words[:-1]}, and the first layer does not make up for it."
    for fault in ("dead", "saturated"):
        present, words = _SIGNS[fault][1](repaired, table)
        if present:
            yield f"After your repair {words}"
    yield from _far(rows, twin)
    present, words = _initial_loss(repaired, table)
    if present:
        yield f"After your repair {words}"
    loss, trained = _train(repaired)
    weights = {name: p for name, p in repaired.model.named_parameters() if p.ndim > 1}
    idle = [name for name, p in weights.items() if torch.equal(p, trained.get_parameter(name))]
    if case.rewires and idle:
        yield f"All weights must take part; training left {idle[0]} as it was."
    if not loss < TRAINED:
        yield f"After {STEPS} steps of training the loss is {loss:.2f}; a healthy twin's is below {TRAINED}."


def _standardized(rows: pd.DataFrame, twin: pd.DataFrame) -> bool:
    """Return whether the first layer makes up for its inputs, as one with folded-in mean and scale does."""
    first, wanted = rows.iloc[0], twin.iloc[0]
    return (
        0.25 < first["second_moment"] / wanted["second_moment"] < 4 and first["varies"] > wanted["varies"] / 2
    )


def _wrong_weights(patient: Patient, rows: pd.DataFrame, twin: pd.DataFrame) -> Iterator[str]:
    """Compare weight_std with the twin's, but where a norm follows; the last layer's may be smaller."""
    limit = EXACT if case_of(patient.number).fault in _EXACT_IN else ROUGH
    for (i, row), (_, wanted) in zip(rows.iterrows(), twin.iterrows(), strict=True):
        std, target = row["weight_std"], wanted["weight_std"]
        low, high = (0, ROUGH * target) if i == len(rows) - 1 else (target / limit, target * limit)
        if row["activation"] != "norm" and not low <= std <= high:
            words = f"weight_std is {std:.2g} in layer {row['layer']}; a healthy twin has {target:.2g}"
            yield f"After your repair {words}, {math.sqrt(row['fan_in']) * target:.2g} / sqrt(fan_in)."
            return


def _spread(values: pd.Series) -> float:
    if not values.max() > 0:
        return 1.0  # behind a last layer of zeros no gradient is yet to be seen
    return values.max() / values.min() if values.min() > 0 else math.inf


def _far(rows: pd.DataFrame, twin: pd.DataFrame) -> Iterator[str]:
    """Compare the second moments of signal and gradient in the hidden layers from end to end."""
    for column in ("second_moment", "gradient_second_moment"):
        values, healthy = rows[column].iloc[:-1], twin[column].iloc[:-1]
        spread, allowed = _spread(values), max(FAR, 10 * _spread(healthy))
        if spread > allowed:
            high, low = rows["layer"][values.idxmax()], rows["layer"][values.idxmin()]
            yield (
                f"After your repair {column} differs by a factor of {spread:.2g} between {low} and {high}; "
                f"at most {allowed:.2g} is healthy here."
            )


# ---- Grades, hints, solutions ------------------------------------------------------------------------------


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
    if fault not in (*FAULTS, "healthy"):
        names = ", ".join(map(repr, (*FAULTS, "healthy")))
        raise ValueError(f"fault must be one of {names}; got {fault!r}")
    if repair is not None and not callable(repair):
        raise TypeError(f"repair must be a function of (model, inputs), or None; got {type(repair).__name__}")
    patient = clinic_patient(number)  # the one that the learner has seen
    table = examine(patient)
    names = [*table["layer"], *sorted({"", *(name for _, name in case.also)} - {*table["layer"]})]
    if layer is not None and layer not in names:
        raise ValueError(f"layer must be one of {', '.join(map(repr, names))}; got {layer!r}")
    remarks = list(_diagnosis_faults(case, patient, table, fault, layer))
    wrong, warnings = _grade_repair(case, number, repair)
    return Grade(number, True, not (remarks or wrong), (*remarks, *wrong, *warnings))


def _diagnosis_faults(
    case: Case, patient: Patient, table: pd.DataFrame, fault: str, layer: str | None
) -> Iterator[str]:
    right = {(case.fault, case.layer), *case.also}
    if fault not in {name for name, _ in right}:
        yield _on_fault(patient, table, fault)
    elif fault == "healthy":
        return
    elif layer is None:
        yield f'"{fault}" is right. In which layer does it begin?'
    elif (fault, layer) not in right:
        yield _on_layer(patient, table, layer)


def _grade_repair(case: Case, number: int, repair: Repair | None) -> tuple[list[str], list[str]]:
    """Return what is wrong with the repair, and warnings."""
    if repair is None:
        return ([], []) if case.fault == "healthy" else (["No repair yet."], [])
    needless: set[str] = set()
    for seed in GRADED_SEEDS:
        patient = clinic_patient(number, seed)
        repaired = _apply(repair, patient)
        touched = _changed(patient.model, repaired.model)
        rebuilt = repr(patient.model) != repr(repaired.model) or not torch.equal(
            patient.inputs, repaired.inputs
        )
        if case.fault != "healthy" and not (touched or rebuilt):
            return [f"Your repair changed nothing. {_clue(patient, examine(patient))}"], []
        measurable = _measurable(patient, repaired)
        if isinstance(measurable, str):
            return [measurable], []
        wrong = next(_repair_faults(patient, measurable, seed), None) if touched or rebuilt else None
        if wrong:
            return [wrong], []
        if not case.rewires:
            needless |= touched - _changed(healthy_twin(number, seed).model, patient.model)
    if not needless:
        return [], []
    names = ", ".join(sorted(needless)[:3]) + ", ..." * (len(needless) > 3)
    return [], [f"Warning: the repair also rewrote what was sound: {names}."]


def hint(number: int, level: int = 1) -> str:
    """Return where to look (level 1), or what is to be seen there, in the numbers of seed 0 (level 2).

    Raises: ValueError for another number or level.
    """
    if level not in (1, 2):
        raise ValueError(f"level must be 1 or 2; got {level!r}")
    patient = clinic_patient(number)
    return case_of(number).look if level == 1 else f"Measured: {_clue(patient, examine(patient))}"


@dataclass(frozen=True)
class Solution:
    """The planted truth, why it is so, and a repair; print it."""

    fault: str
    layer: str
    why: str
    repair: Repair

    def __str__(self) -> str:
        source = textwrap.dedent(inspect.getsource(self.repair))
        return f"{self.fault}{f', layer {self.layer}' * bool(self.layer)}\n\n{self.why}\n\n{source}"


def solution(number: int) -> Solution:
    """Return the solution for patient `number`. Raises: ValueError for another number."""
    case = case_of(number)
    return Solution(case.fault, case.layer, case.why, case.repair)
