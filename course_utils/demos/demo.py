"""What every demo is made of: the widget, its controls, and the words of its sentence."""

import html
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import ClassVar, TypeVar

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from course_utils import comparison, data
from course_utils.activations import relu
from course_utils.checks import check_name
from course_utils.demos import canvas
from course_utils.initializers import kaiming_normal_, lecun_normal_
from course_utils.networks import Ensemble
from course_utils.style import style_sheet

Drawing = tuple[Figure, str]  # with its sentence
Control = Callable[..., widgets.Widget]  # of the value that it starts with
F = TypeVar("F", bound=Callable[..., Drawing])
T = TypeVar("T")


class Demo(widgets.VBox):
    """A question, labelled controls, a figure that follows them, and what it shows in a sentence.

    Each control is named as the argument of `draw` that it sets, and starts at that argument's default. An
    exception while drawing is shown in the demo and raised.
    """

    # JupyterLab delivers the moves of a slider in one thread and clicks on a button in another.
    _lock: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, question: str, draw: Callable[..., Drawing], **controls: Control) -> None:
        self.question, self._draw, first = question, draw, inspect.signature(draw).parameters
        self._resetting, self._context = False, canvas.reusing()
        self._defaults = {name: first[name].default for name in controls}
        self.controls = {name: control(value=self._defaults[name]) for name, control in controls.items()}
        self.image = widgets.Image(format="jpeg")
        self.sentence = widgets.HTML()
        self.reset_button = widgets.Button(description="Reset", tooltip="Back to the first setting")
        self.reset_button.on_click(lambda _: self.reset())
        for control in self.controls.values():
            control.observe(lambda _: self.redraw(), names="value")
        panel = widgets.Box([*self.controls.values(), self.reset_button]).add_class("course-controls")
        heading = widgets.HTML(f"<b>{question}</b>")
        super().__init__([style_sheet(), heading, panel, self.image, self.sentence])
        self.add_class("course-demo")
        self.redraw()

    def __repr__(self) -> str:
        return f"Demo: {self.question}"

    def redraw(self) -> None:
        """Draw the figure and the sentence for the controls' present values."""
        with self._lock:
            if self._resetting:
                return
            try:
                values = {name: control.value for name, control in self.controls.items()}
                figure, text = self._context.run(self._draw, **values)
                self.image.value, self.sentence.value = canvas.draw_jpeg(figure), text
            except Exception as error:
                message = html.escape(f"{type(error).__name__}: {error}")
                self.sentence.value = f"<b>This setting could not be drawn.</b> {message}"
                raise

    def reset(self) -> None:
        """Put every control back to the value it started with, and draw once."""
        with self._lock:
            self._resetting = True
            for name, value in self._defaults.items():
                self.controls[name].value = value
            self._resetting = False
            self.redraw()


def asks(question: str, **controls: Control) -> Callable[[F], F]:
    """Give a figure function its `demo()`: this question, and these controls over the function."""

    def decorate(draw: F) -> F:
        draw.demo = partial(Demo, question, draw, **controls)
        return draw

    return decorate


def slider(
    label: str, low: float, high: float, step: float, readout: str = ".2f", kind: type = widgets.FloatSlider
) -> Control:
    """Return a slider from `low` to `high` in steps of `step`."""
    return partial(kind, description=label, min=low, max=high, step=step, readout_format=readout)


integers = partial(slider, readout="d", kind=widgets.IntSlider)
log_slider = partial(slider, kind=widgets.FloatLogSlider)  # low, high and step are logarithms


def choice(label: str, options: Iterable, kind: Control = widgets.Dropdown) -> Control:
    """Return a menu of the options."""
    return partial(kind, description=label, options=tuple(options))


# A slider that stops at the options only.
one_of = partial(choice, kind=partial(widgets.SelectionSlider, _dom_classes=["course-no-typing"]))
WIDTH = one_of("width (n)", (16, 64, 256, 512, 1024))


def pick(kind: str, known: Mapping[str, T], name: str) -> T:
    """Return known[name]. Raises: ValueError with the known names for another one."""
    return known[check_name(kind, name, known)]


def luck(seed: int = 0) -> torch.Generator:
    """Return a generator, the same at every setting: a slider changes that, and not the luck."""
    return torch.Generator().manual_seed(seed)


def remembered(sampler: Callable[..., T]) -> Callable[..., T]:
    """Return the sampler without its generator but with a seed, 0 unless given; it keeps its last draws."""
    return lru_cache(maxsize=8)(lambda *args, seed=0, **sizes: sampler(*args, **sizes, generator=luck(seed)))


def versus(
    predicted: float, samples: NDArray, of: Callable[[NDArray], comparison.Estimate] = comparison.mean_of
) -> str:
    """Return a prediction and its estimate `of` samples as text, to the digits that its error supports."""
    row = comparison.Row("", float(predicted), of(samples))
    return "predicted {}, measured {} ± {}".format(*comparison.format_estimate(row))


def median_and_range(values: NDArray, spec: str = "{:.3g}", rough: str = "{:.2g}") -> str:
    """Return median and central 95 % of one number per network as text."""
    low, median, high = np.percentile(values, [2.5, 50, 97.5])
    texts = spec.format(median), rough.format(low), rough.format(high)
    return "over {} networks: median {}, 95 % between {} and {}".format(len(values), *texts)


def power_of_ten(log10: float) -> str:
    """Return 10**log10 as text: three digits, or a power of ten where that is easier to read."""
    return f"{10**log10:.3g}" if abs(log10) < 3 else f"10^{log10:.1f}"


@cache
def balanced_digits(per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs (float64) and labels of the first `per_class` training digits of each class, by class."""
    images = data.digits()
    index = torch.cat([torch.nonzero(images.train_labels == k)[:per_class, 0] for k in range(10)])
    return images.train_inputs[index].double(), images.train_labels[index]


def he_networks(count: int, hidden: Sequence[int]) -> Ensemble:
    """Return ReLU networks for the digits, in float64, of He's weights, LeCun's in the last layer.

    `hidden` are the widths of the hidden layers. float64, because a step may lower the loss by 1e-12.
    """
    sizes = [balanced_digits(1)[0].shape[1], *hidden, 10]
    network = Ensemble(count, sizes, relu, kaiming_normal_, output_init_=lecun_normal_, generator=luck())
    return network.double()


@cache
def normals(*shape: int) -> NDArray:
    """Return N(0, 1) numbers; in float32, which is twice as fast and good to more digits than are shown."""
    return torch.randn(shape, generator=luck()).numpy()
