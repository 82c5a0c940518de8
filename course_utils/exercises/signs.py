"""A patient, and its signs: each tells whether it is there, and the numbers in words."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
import torch
from torch import Tensor, nn

from course_utils.doctor import diagnose
from course_utils.doctor.thresholds import DEAD, EXCESS_LOSS, LARGE_INPUT, SATURATED, SMALL_INPUT

SPREAD = 100.0  # largest second moment over smallest, of signal or gradient, from one end to the other
CENTRED = 0.5  # largest share of the inputs' second moment in their mean; after a repair it should be less
SHARED = 0.5  # the largest part of a layer's weights that its units may have in common


@dataclass(frozen=True, eq=False)
class Patient:
    """A network with a task: `inputs` (batch, ...), `targets` (batch,); its owner's complaint."""

    number: int
    complaint: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor


Sign = Callable[[Patient, pd.DataFrame], tuple[bool, str]]


def examine(patient: Patient) -> pd.DataFrame:
    """Return `diagnose`'s table without wanted_std and weight_ratio; the column fault is left to you.

    `doctor.plot.plot_diagnosis` draws it.
    """
    table = diagnose(patient.model, patient.inputs, patient.targets).table
    return table.drop(columns=["wanted_std", "weight_ratio"]).assign(fault="")


def weighted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of linear and convolutional layers, in order."""
    return table[table["fan_in"].notna()].reset_index(drop=True)


def drift(column: str, *, grows: bool) -> Sign:
    """Follow the second moment of the signal, or of the gradient on its way back, from layer to layer."""

    def sign(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
        back = column == "gradient_second_moment"
        hidden = weighted(table).iloc[:-1].iloc[:: -1 if back else 1]
        names, values = hidden["layer"].tolist(), hidden[column].tolist()
        if values[0] == 0:
            return not grows, f"{column} is 0 at {names[0]}."
        words = f"{column} goes from {values[0]:.2g} at {names[0]} to {values[-1]:.2g} at {names[-1]}"
        if not math.isnan(factor := values[-1] / values[0]):
            words += f", a factor of {factor ** (1 / max(len(values) - 1, 1)):.2g} per layer"
        return factor > SPREAD if grows else factor < 1 / SPREAD, f"{words}{' on its way back' * back}."

    return sign


fading, growing = (drift("second_moment", grows=grows) for grows in (False, True))
fading_back, growing_back = (drift("gradient_second_moment", grows=grows) for grows in (False, True))


def _share(column: str, limit: float) -> Sign:
    def sign(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
        if table[column].isna().all():
            return False, f"the column {column} is empty."
        row = table.loc[table[column].idxmax()]
        return row[column] > limit, f"the largest value of {column} is {row[column]:.2g}, at {row['layer']}."

    return sign


dead, saturated = _share("dead", DEAD), _share("saturated", SATURATED)


def law(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    """Compare the weights of all layers with 1 / sqrt(fan_in); which of them is wrong, the case must say."""
    rows, words = weighted(table), []
    scaled = [f"{x:.1f}" for x in rows["weight_std"] * rows["fan_in"] ** 0.5]
    runs = groupby(zip(scaled, rows["activation"], rows["layer"], strict=True), key=lambda row: row[:2])
    for (value, activation), run in runs:
        first, *_, last = [layer for _, _, layer in run] * 2
        where = first if first == last else f"{first} to {last}"
        words.append(f"{value} at {where}" + f" (before {activation})" * bool(activation))
    return False, f"weight_std * sqrt(fan_in) is {', '.join(words)}."


def not_finite(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    """Count the entries of parameters that are NaN or infinite."""
    counts = {name: int((~p.isfinite()).sum()) for name, p in patient.model.named_parameters()}
    words = ", ".join(f"{count} in {name}" for name, count in counts.items() if count)
    return bool(words), f"the entries that are NaN or infinite: {words or 'none in any parameter'}."


def input_scale(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    """Compare the inputs with mean 0 and second moment 1."""
    if not patient.inputs.is_floating_point():
        return False, "the inputs are indices of tokens and have no scale."
    mean, moment = patient.inputs.mean().item(), patient.inputs.square().mean().item()
    words = f"the inputs have mean {mean:.2f} and second moment {moment:.2g}."
    return not SMALL_INPUT < moment < LARGE_INPUT or mean**2 > CENTRED * moment, words


def identical(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    """Measure which part of the weights' second moment lies in their mean over a layer's units."""

    def in_common(weight: Tensor) -> float:  # in either layout
        matrix = weight.detach().double().flatten(1).nan_to_num()
        means = max(matrix.mean(dim).square().mean().item() for dim in (0, 1))
        return means / max(matrix.square().mean().item(), 1e-300)

    weights = {name: p for name, p in patient.model.named_parameters() if p.ndim > 1}
    share, name = max((in_common(p), name) for name, p in weights.items())
    what = f"{share:.0%} of the weights' second moment in {name}"
    return share > SHARED, f"{what} is common to all units, the most of any layer."


def zero(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    """Look for a layer whose weights are all 0."""
    row = table.loc[table["weight_std"].idxmin()]
    return row["weight_std"] == 0, f"the smallest weight_std is {row['weight_std']:.2g}, at {row['layer']}."


def initial_loss(patient: Patient, table: pd.DataFrame) -> tuple[bool, str]:
    """Compare the loss before training with that of equal probabilities, ln 10."""
    model = copy.deepcopy(patient.model)  # whose running means a pass may change
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(patient.inputs), patient.targets).item()
    return loss > math.log(10) + EXCESS_LOSS, f"the loss before training is {loss:.3g}; ln 10 is 2.3."


# What a fault's name claims, and how to measure whether it is so, as a cause or as a consequence of another.
MEANINGS: dict[str, tuple[str, Sign]] = {
    "vanishing signal": ("weights so small that second_moment falls towards 0", fading),
    "dead": ("ReLUs that are 0 on the whole batch", dead),
    "missing gain": ("weight_std * sqrt(fan_in) of 1 in front of ReLUs, which want 1.4", law),
    "zero layer": ("a layer of zeros that is not the last, of the network or of a branch", zero),
    "vanishing gradient": ("gradients that fall on their way back while the signal is steady", fading_back),
    "input scale": ("inputs that are far from mean 0 and second moment 1", input_scale),
    "identical units": ("units of one layer with the same weights", identical),
    "large initial loss": ("a last layer alone that makes the loss large", initial_loss),
    "wrong fan": ("weights with the std gain / sqrt(n), where n is not the fan_in", law),
    "exploding gradient": ("gradients that grow on their way back while the signal is steady", growing_back),
    "not finite": ("a parameter or an input that is NaN or infinite", not_finite),
    "transposed weight": ("a matrix kept (in, out) with the std gain / sqrt(fan_out)", law),
    "saturated": ("outputs of tanh or sigmoid at their bounds", saturated),
    "double init": ("a layer whose weight_std is gain² / fan_in", law),
    "exploding signal": ("weights so large that second_moment grows without limit", growing),
    "misplaced gain": ("a ReLU's gain of 1.4 in front of no ReLU, and missing in front of one", law),
}
