"""Models as people write them: no alarm if healthy, faults named at their layer, and everything put back."""

import math
from importlib import import_module
from pathlib import Path

import pytest
import torch
from initialize_networks import bits, seeded
from zoo.specimen import Planted, Specimen

from course_utils.doctor import Diagnosis, diagnose, initialize_

FILES = ["vision", "vision_2", "vision_3", "language", "language_2", "language_3"]
FILES += ["others", "others_2", "others_3", "others_4"]
ZOO: list[Specimen] = [s for name in FILES for s in import_module(f"zoo.{name}").SPECIMENS]
NAMES = [s.name for s in ZOO]
# What no judge sees, each with the reason; docs/doctor.md says so in general.
NOT_SEEN = {
    "a router that knows two experts": "experts that are never called make no row",
    "embedding x 0.001": "a module's gates are not looked into, and it does not fade to nothing",
    "recurrent x 0.2": "how long a memory has to be is for the task to say: a remark",
    "gates shut": "a gate of a path that another leads around may be shut on purpose",
    "weights x 0.005": "what another path leads around may be small on purpose",
    "w2 x 30": "a product of three factors is no layer",
    "weights x 20": "tanh hides its size, and another path leads around",
}


def built(specimen: Specimen):
    torch.default_generator.manual_seed(0)
    return specimen.build()


def named(diagnosis: Diagnosis) -> list[str]:
    return [layer for f in diagnosis.findings if f.is_fault for layer in (f.layer, *f.others)]


@pytest.mark.parametrize("specimen", ZOO, ids=NAMES)
def test_a_stock_model_raises_no_alarm_and_stays_as_it_was(specimen: Specimen):
    model, inputs, targets, loss = built(specimen)
    before, state = bits(model), torch.get_rng_state()
    diagnosis = diagnose(model, inputs, targets, loss)
    assert diagnosis.healthy, diagnosis.verdict
    assert all(torch.equal(value, bits(model)[name]) for name, value in before.items())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("specimen", ZOO, ids=NAMES)
def test_after_initialize_nothing_is_wrong(specimen: Specimen):
    model, inputs, targets, loss = built(specimen)
    initialize_(model, inputs, generator=seeded())
    diagnosis = diagnose(model, inputs, targets, loss)
    assert diagnosis.healthy, diagnosis.verdict
    if specimen.classes and diagnosis.loss > math.log(specimen.classes) + 0.6:
        stock = diagnose(*built(specimen))
        assert diagnosis.loss < 1.01 * stock.loss  # what was left alone has it so


FAULTS = [(s, f) for s in ZOO for f in s.faults]


@pytest.mark.parametrize(("specimen", "fault"), FAULTS, ids=[f"{s.name}: {f.name}" for s, f in FAULTS])
def test_a_planted_fault_is_named_at_its_layer(specimen: Specimen, fault: Planted):
    model, inputs, targets, loss = built(specimen)
    fault.plant(model)
    found = any(name.startswith(fault.layers) for name in named(diagnose(model, inputs, targets, loss)))
    assert found != (fault.name in NOT_SEEN)


def test_enough_is_seen_and_every_file_of_the_zoo_is_visited():
    assert len(ZOO) >= 30
    assert sum(f.name not in NOT_SEEN for _, f in FAULTS) >= 0.95 * len(FAULTS)
    folder = Path(__file__).parents[1] / "zoo"
    assert {*FILES} <= {path.stem for path in folder.glob("*.py")}


def test_the_page_states_how_many_models_of_others_the_stored_table_has():
    tests = Path(__file__).parents[1]
    table = (tests / "zoo_of_libraries.txt").read_text(encoding="utf-8").splitlines()
    count = sum(line.startswith(("transformers ", "timm ")) for line in table)
    page = (tests.parent / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert f"{count} models ran, 0 did not" in "\n".join(table)
    assert f"on {count} models of `transformers` and `timm`" in page
