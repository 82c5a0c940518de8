"""The playground: two networks that train side by side in a notebook while every setting can be changed.

At most one playground of a kernel trains: running one, or making another, pauses the one that does. A new
learning rate holds from the next step on; every other change starts both networks anew from step 0.
"""

import asyncio
import html
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import ClassVar

import ipywidgets as widgets
from traitlets import Bunch

from course_utils.playground.engine import DATA_SETS, Pair, Trainer
from course_utils.playground.experiments import EXPERIMENTS, Experiment
from course_utils.playground.network import MENUS, Settings
from course_utils.playground.picture import Snapshot, draw, take_snapshot
from course_utils.plotting import to_jpeg
from course_utils.style import style_sheet

SPEEDS = (1, 5, 20, 100)
# Not a FloatLogSlider: the browser would round 0.3 to a step of that, and send it back as a change.
RATES = [(f"{rate:g}", rate) for rate in (float(f"{x}e{k}") for k in range(-4, 1) for x in (1, 2, 3, 5))]
MOST_STEPS = 10_000  # after which it pauses by itself, lest a forgotten playground keep a core busy
FRAME, TRAINING, REST = 0.07, 0.02, 0.01  # seconds: a frame at least, training in it at most, sleep at least
FREE = "free choice"
_OPTIONS = {field: [*menu] for field, menu in MENUS.items()} | {
    "depth": (1, 2, 3, 4, 6, 8, 12, 16, 20),
    "width": (2, 4, 8, 16, 32, 64),
    "residual": (("off", False), ("on", True)),
}
# Label and tooltip of each field of `Settings`, in the order in which they are shown.
_TEXTS = {
    "scheme": ("initialization", "the law of all weights; n is the fan-in"),
    "gain": ("× gain", "a factor on every weight drawn: LeCun normal × g has std g/√n"),
    "depth": ("depth", "hidden layers"),
    "width": ("width", "units in each hidden layer (n)"),
    "activation": ("activation", "the function of each hidden unit"),
    "norm": ("norm", "normalization of the pre-activations"),
    "residual": ("residual", "adds a hidden layer's input to its output, from layer 2 on"),
    "optimizer": ("optimizer", "the update rule"),
    "learning_rate": ("learning rate", "per step; a change holds from the next step on, without a new start"),
}
_BUTTONS = {  # icon and tooltip of each method that has one
    "run": ("play", "Train both networks until Pause"),
    "pause": ("pause", "Stop here; Run goes on"),
    "step": ("step-forward", "Pause and make one step"),
    "reset": ("undo", "Pause and go back to step 0, with these settings"),
}


def _control(side: str, field: str) -> widgets.Widget:
    label, tooltip = _TEXTS[field]
    common = {"description": label, "tooltip": f"{side}: {tooltip}"}
    if field == "gain":
        control = widgets.FloatLogSlider(**common, min=-2, max=1, step=0.05, readout_format=".3g")
    elif field == "learning_rate":
        control = widgets.SelectionSlider(**common, options=RATES).add_class("course-no-typing")
    else:
        control = widgets.Dropdown(**common, options=_OPTIONS[field])
    return control.add_class(f"playground-{field.replace('_', '-')}")


def _dropdown(label: str, options: Sequence, tooltip: str) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, description=label, tooltip=tooltip)


def _row(name: str, *parts: widgets.Widget) -> widgets.Box:
    return widgets.Box(parts).add_class(f"playground-{name}")


class Playground(widgets.VBox):
    """Settings of A and B, buttons, and a picture that follows the two networks while they train.

    `pair` is what trains, `snapshots` what is shown of it; `run()`, `pause()`, `step()` and `reset()` do what
    the buttons do. `active` is the playground that trains, None if none does.
    """

    # JupyterLab delivers changed settings in a thread of their own; buttons, cells and training share
    # the main thread. One lock for all playgrounds keeps a setting and a frame from running into each other.
    _lock: ClassVar[threading.RLock] = threading.RLock()
    active: ClassVar["Playground | None"] = None

    def __init__(self) -> None:
        self._loop = _event_loop()
        self._run: object | None = None  # stands for the present run; a frame of any other run does nothing
        self._task: Future | None = None
        self.snapshots: list[Snapshot | None] = [None, None]
        self._quiet, self._turn = False, 0
        self._make_controls()
        super().__init__([style_sheet(), *self._rows()])
        self.add_class("course-playground")
        self.experiment.observe(lambda change: self._choose(change.new), names="value")
        for control in (self.data, self.seed, *self.controls[0].values(), *self.controls[1].values()):
            control.observe(self._changed, names="value")
        with self._lock:
            (Playground.active or self).pause()
            self._choose(self.experiment.value)

    def __repr__(self) -> str:
        return "Playground: two networks, A and B, from the same seed"

    def _make_controls(self) -> None:
        self.controls = [{field: _control(side, field) for field in _TEXTS} for side in "AB"]
        experiments = [*((experiment.name, experiment) for experiment in EXPERIMENTS), (FREE, FREE)]
        self.experiment = _dropdown("experiment", experiments, "Sets both networks and the data")
        self.data = _dropdown("data", [*DATA_SETS], "What both networks learn")
        tooltip = "Draws weights, data and batches; the same for A and B"
        self.seed = widgets.BoundedIntText(0, min=0, max=999, description="seed", tooltip=tooltip)
        self.speed = _dropdown("steps per frame", SPEEDS, "Fewer, if the computer cannot keep up")
        self.speed.value = 5
        self.buttons = {}
        for name, (icon, tooltip) in _BUTTONS.items():
            self.buttons[name] = widgets.Button(description=name.title(), icon=icon, tooltip=tooltip)
            self.buttons[name].on_click(lambda _, name=name: getattr(self, name)())
        self.text, self.status = widgets.HTML(), widgets.HTML()
        self.image = widgets.Image(format="jpeg")
        for name in ("experiment", "speed", "text", "status"):
            getattr(self, name).add_class(f"playground-{name}")

    def _rows(self) -> list[widgets.Widget]:
        shared = _row("shared", self.experiment, self.data, self.seed, self.speed)
        names = [widgets.HTML(f"<b>{side}</b>").add_class("playground-name") for side in "AB"]
        sides = [_row("side", name, *row.values()) for name, row in zip(names, self.controls, strict=True)]
        return [shared, self.text, *sides, _row("buttons", *self.buttons.values(), self.status), self.image]

    # ---- What the buttons do

    @property
    def running(self) -> bool:
        """Whether the two networks train."""
        return self._run is not None

    def run(self) -> None:
        """Train until `pause`, until neither side can, or for 10,000 steps; nothing if it runs already."""
        with self._lock:
            if self.running:
                return
            if self._loop is None or self._loop.is_closed():
                self._loop = _event_loop()
            if self._loop is None:
                self.status.value = "<b>Run needs an event loop</b>: run this in a notebook, which has one."
                return
            (Playground.active or self).pause()
            Playground.active, self._run, self._goal = self, object(), self.pair.steps + MOST_STEPS
            self._task = asyncio.run_coroutine_threadsafe(self._train(self._run), self._loop)
            self.buttons["run"].disabled, self.buttons["pause"].disabled = True, False

    def pause(self) -> None:
        """Stop training; `run` goes on from here."""
        with self._lock:
            task = self._task
            self._ended()
            if task is not None:
                task.cancel()
                self._guarded(lambda: None)  # what is left to see of A and B is of the same step

    def step(self) -> None:
        """Pause, and make one step."""
        with self._lock:
            self.pause()
            self._guarded(lambda: self.pair.train(1))

    def reset(self) -> None:
        """Pause, and go back to step 0 with the present settings."""
        with self._lock:
            self.pause()
            self._guarded(self._start)

    def _ended(self) -> None:
        self._run = self._task = None
        if Playground.active is self:
            Playground.active = None
        self.buttons["run"].disabled, self.buttons["pause"].disabled = False, True

    # ---- Training

    async def _train(self, run: object) -> None:
        try:
            while True:
                start = time.perf_counter()
                with self._lock:
                    if self._run is not run or not self._guarded(
                        lambda: self.pair.train(self.speed.value, TRAINING)
                    ):
                        return
                    if self.pair.finished or self.pair.steps >= self._goal:
                        self.pause()
                        return
                await asyncio.sleep(max(REST, start + FRAME - time.perf_counter()))
        finally:  # also where the event loop ends and cancels what it runs
            with self._lock:
                if self._run is run:
                    self._ended()

    def _guarded(self, action: Callable[[], None]) -> bool:
        """Do something and draw; after an exception pause, say it in the panel, and return False."""
        try:
            action()
            self._draw()
        except Exception as error:
            self.pause()
            self.status.value = f"<b>This did not work.</b> {html.escape(f'{type(error).__name__}: {error}')}"
            return False
        return True

    # ---- Settings

    def settings(self, side: int) -> Settings:
        """Return what the controls of side 0 (A) or 1 (B) say."""
        return Settings(**{field: control.value for field, control in self.controls[side].items()})

    def _start(self) -> None:
        self.status.value = f"Starting anew with the {self.data.value} …"  # the digits take a second
        self.pair = Pair(self.settings(0), self.settings(1), self.data.value, self.seed.value)

    def _changed(self, change: Bunch) -> None:
        with self._lock:
            if self._quiet:
                return
            sides = [i for i in range(2) if change.owner is self.controls[i]["learning_rate"]]
            for i in sides:
                self.pair.trainers[i].settings = self.settings(i)
            if not sides:
                self._guarded(self._start)
            self.experiment.value = FREE

    def _choose(self, experiment: Experiment | str) -> None:
        """Set both sides as the experiment says, and start it from step 0; a free choice sets nothing."""
        with self._lock:
            if experiment == FREE:
                self.text.value = "Free choice: change one side or both, and predict before you run."
                return
            details = f"<summary>What to expect by step {experiment.steps}</summary>{experiment.expectation}"
            self.text.value = f"<b>Predict:</b> {experiment.question}<details>{details}</details>"
            self._quiet = True  # lest each control start the networks anew
            self.data.value = experiment.data
            for controls, settings in zip(self.controls, (experiment.a, experiment.b), strict=True):
                for field, control in controls.items():
                    control.value = getattr(settings, field)
            self._quiet = False
            self._guarded(self._start)

    # ---- What is shown

    def _draw(self) -> None:
        """Show the present state; while training, look at A and B in turn, which halves the work."""
        trainers = self.pair.trainers
        for i in [self._turn] if self.running and self.pair.steps else [0, 1]:
            self.snapshots[i] = take_snapshot(trainers[i])
        self._turn = 1 - self._turn
        self.image.value = to_jpeg(draw(self.pair, self.snapshots))
        both = zip("AB", trainers, self.snapshots, strict=True)
        self.status.value = "".join(f"<div>{_sentence(*shown)}</div>" for shown in both)


def _event_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread (in a notebook that of its cells), None without one."""
    with suppress(RuntimeError):
        return asyncio.get_running_loop()


def _sentence(name: str, trainer: Trainer, snapshot: Snapshot) -> str:
    if trainer.problem:
        return f"<b>{name}</b> {html.escape(trainer.problem)}."
    words = f"<b>{name}</b> step {len(trainer.losses)}: "
    if recent := trainer.losses[-20:]:
        span = "last step" if len(recent) == 1 else f"last {len(recent)} steps"
        words += f"loss {sum(recent) / len(recent):.3g} ({span}), "
    return f"{words}test accuracy {snapshot.measures.accuracy:.0%}."
