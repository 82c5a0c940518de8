"""Stock models of `transformers` and `timm` before the doctor: `make zoo`.

A stock model must raise no alarm, unless weights of the wanted size make it learn clearly faster, or training
does not change the weights that are blamed; a planted fault must be named; and each model must afterwards be
what it was, bit for bit. The table goes to zoo_of_libraries.txt, too. `python tests/zoo_of_libraries.py gpt2
vit` judges these two only.
"""

import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from zoo import of_timm, of_transformers
from zoo.batches import Batch, Entry
from zoo.libraries import timm, transformers
from zoo.planting import Course, Plant, costs, helps, plant, plants, trained, treat

from course_utils.doctor import Diagnosis, diagnose, initialize_

TABLE = Path(__file__).with_suffix(".txt")
PLANTED = 2  # faults for a model
WORKERS = 2  # processes, with one model each at a time
ENTRIES = [*of_transformers.entries(), *of_timm.entries()]


@dataclass
class Outcome:
    """What became of one model: a row of the table."""

    library: str
    name: str
    reason: str = ""  # why it did not run
    alarms: list[str] = field(default_factory=list)
    true: bool = False  # whether training says that the alarms are right
    planted: list[str] = field(default_factory=list)  # that cost something
    found: int = 0
    named: int = 0
    kept: str = "yes"
    initialized: str = "yes"
    seconds: float = 0.0

    def row(self) -> str:
        """Return the line of the table."""
        head = f"{self.library:13}{self.name:33}"
        if self.reason:
            return f"{head}did not run: {self.reason}"
        alarms = "; ".join(self.alarms) + " (true)" * self.true or "none"
        planted = ", ".join(self.planted) or "none that costs"
        return f"{head}{self.kept:6}{self.initialized:6}{self.seconds:5.1f}  {alarms} | {planted}"


HEAD = f"{'library':13}{'model':33}{'kept':6}{'init':6}{'s':>5}  alarms | planted faults that cost something"


def bits(tensor: Tensor | None) -> bytes:
    """Return a tensor's content, in which NaN equals itself."""
    return b"" if tensor is None else tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()


def state(model: nn.Module, with_parameters: bool = True) -> dict[str, object]:
    """Return all that must stay: values, gradients and which tensors hold them, flags, torch's generator."""
    parameters = dict(model.named_parameters())
    held = {name: (bits(b), b.dtype, b.shape) for name, b in model.named_buffers()}
    if with_parameters:
        held |= {f"{name} value": (bits(p), p.dtype, p.shape) for name, p in parameters.items()}
    held |= {f"{name} id": id(p) for name, p in parameters.items()}
    held |= {f"{name} grad": (id(p.grad), bits(p.grad), p.requires_grad) for name, p in parameters.items()}
    held |= {f"{name} training": module.training for name, module in model.named_modules()}
    return held | {"torch's generator": bits(torch.get_rng_state())}


def changed(before: dict[str, object], after: dict[str, object]) -> str:
    """Return what differs, or "yes" for all kept."""
    differ = [name for name in before | after if before.get(name) != after.get(name)]
    return f"no: {differ[0]} and {len(differ) - 1} more" if differ else "yes"


def worded(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def built(entry: Entry) -> nn.Module:
    """Return the stock model, the same with each call, in the mode in which training starts."""
    torch.default_generator.manual_seed(0)
    return entry.build().train()


def examine(model: nn.Module, batch: Batch) -> Diagnosis:
    return diagnose(model, batch.inputs, batch.targets, batch.loss)


def names_in(diagnosis: Diagnosis) -> dict[str, str]:
    """Return the layers and parameters that are blamed, and for what."""
    blamed = {n: f.fault for f in diagnosis.findings if f.is_fault for n in (*f.others, f.layer)}
    return {name.partition(" (call")[0]: fault for name, fault in blamed.items()}


def ratios(diagnosis: Diagnosis) -> dict[str, float]:
    """Return what share of the wanted std the weights of the blamed layers have."""
    table = diagnosis.table.set_index("layer")["weight_ratio"]
    return {name: table[name] for name in names_in(diagnosis) if name in table}


def idle(model: nn.Module, batch: Batch, blamed: set[str]) -> bool:
    """Return whether training leaves every weight that is blamed, or in a blamed layer, as it was."""
    blamed = {n for n, _ in model.named_parameters() if {n, n.rpartition(".")[0]} & blamed}
    before = {name: bits(model.get_parameter(name)) for name in blamed}
    trained(model, batch)
    return bool(before) and all(bits(model.get_parameter(name)) == held for name, held in before.items())


def judge_stock(entry: Entry, batch: Batch, stock: Course, outcome: Outcome) -> None:
    """Diagnose the stock model; note alarms, whether they are right, and what has changed."""
    model = built(entry)
    for p in list(model.parameters())[::2]:  # gradients of an earlier step, which must stay, too
        p.grad = torch.ones_like(p)
    before = state(model)
    try:
        diagnosis = examine(model, batch)
    except Exception as error:
        outcome.alarms = [f"diagnose raised {worded(error)}"]
        return
    outcome.kept = changed(before, state(model))
    outcome.alarms = [f"{f.layer}: {f.fault}" for f in diagnosis.findings if f.is_fault]
    if outcome.alarms:
        treated = built(entry)
        helped = treat(treated, ratios(diagnosis)) and helps(stock, treated, batch)
        outcome.true = helped or idle(built(entry), batch, {*names_in(diagnosis)})


def judge_initialization(entry: Entry, batch: Batch, outcome: Outcome) -> None:
    """Initialize the stock model, and note what has changed beside parameters."""
    model = built(entry)
    before = state(model, with_parameters=False)
    try:
        initialize_(model, batch.inputs, generator=Generator().manual_seed(0))
        outcome.initialized = changed(before, state(model, with_parameters=False))
    except Exception as error:
        outcome.initialized = f"no: {worded(error)}"


def judge_planted(entry: Entry, batch: Batch, stock: Course, place: int, outcome: Outcome) -> None:
    """Plant faults, starting with another one at each place in the list, until two cost something."""
    *ways, last = plants(built(entry), batch)
    first = place % len(ways)
    # Last comes NaN, which is easy to see, where others do no harm.
    for way in (*ways[first:], *ways[:first], last):
        model = built(entry)
        names = plant(model, *way)
        if costs(stock, model, batch):
            model = built(entry)
            plant(model, *way)
            note_planted(model, batch, way, names, outcome)
        if len(outcome.planted) == PLANTED:
            return


def note_planted(model: nn.Module, batch: Batch, way: Plant, names: set[str], outcome: Outcome) -> None:
    """Note whether a fault that costs something is seen, and its place named."""
    try:
        diagnosis = examine(model, batch)
    except Exception as error:
        outcome.planted.append(f"{way.fault} {way.parameter}: diagnose raised {worded(error)}")
        return
    blamed, verdict = names_in(diagnosis), "not seen"
    for layer, fault in [*blamed.items()][:1]:
        verdict = f"seen at {layer} ({fault})"
    said = [blamed[n] for name in sorted(names) for n in (name, name.rpartition(".")[0]) if n in blamed]
    verdict = f"named ({said[0]})" if said else verdict
    outcome.planted.append(f"{way.fault} {way.parameter}: {verdict}")
    outcome.found += not diagnosis.healthy
    outcome.named += bool(said)


def judged(place: int) -> Outcome:
    """Return what becomes of the model at a place of the list."""
    entry, start = ENTRIES[place], time.process_time()
    outcome = Outcome(entry.library, entry.name)
    try:
        batch = entry.batch()
        stock = trained(built(entry), batch)
    except Exception as error:
        outcome.reason = worded(error)
        return outcome
    judge_stock(entry, batch, stock, outcome)
    judge_initialization(entry, batch, outcome)
    judge_planted(entry, batch, stock, place, outcome)
    outcome.seconds = time.process_time() - start
    return outcome


def totals(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the sums, a line each."""
    ran = [o for o in outcomes if not o.reason]
    yield f"{len(ran)} models ran, {len(outcomes) - len(ran)} did not; {sum(o.seconds for o in ran):.0f} s"
    alarms, true = (sum(bool(o.alarms) and o.true >= least for o in ran) for least in (False, True))
    yield f"stock models with an alarm: {alarms}, of these rightly: {true}"
    planted, seen = sum(len(o.planted) for o in ran), sum(o.found for o in ran)
    yield f"planted faults that cost something: {planted}, seen: {seen}, named: {sum(o.named for o in ran)}"
    lost, failed = (sum(getattr(o, name) != "yes" for o in ran) for name in ("kept", "initialized"))
    yield f"state lost by diagnose: {lost}; initialize_ failed or changed more than parameters: {failed}"


def lines(names: list[str], outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the table of the models of these names, or of all, and keep what becomes of each."""
    yield f"torch {torch.__version__}, transformers {transformers.__version__}, timm {timm.__version__}"
    yield HEAD
    places = [i for i, entry in enumerate(ENTRIES) if not names or entry.name in names]
    with get_context("spawn").Pool(WORKERS, initializer=quiet) as pool:
        for outcome in pool.imap(judged, places):
            outcomes.append(outcome)
            yield outcome.row()
    yield from totals(outcomes)


def quiet() -> None:
    """Keep libraries from warning of what a tiny model lacks, and processes from sharing their cores."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)


def main(names: list[str]) -> int:
    """Print the table, store that of all models, and return the exit code."""
    outcomes, table = [], []
    for line in lines(names, outcomes):
        print(line, flush=True)
        table.append(line.rstrip() + "\n")
    if not names:
        TABLE.write_text("".join(table), encoding="utf-8")
    ran = [o for o in outcomes if not o.reason]
    return int(any((o.alarms and not o.true) or {o.kept, o.initialized} != {"yes"} for o in ran))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
