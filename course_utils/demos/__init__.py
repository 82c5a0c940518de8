"""Interactive demos: a question, controls, a figure that follows them, and what it shows in a sentence.

The figures come from pure functions and go into an `Image` widget: nothing is
printed, so that a stored notebook stays free of widget output. Each `*_demo` function puts controls over one.
"""

import html
import threading
from collections.abc import Callable, Sequence
from typing import ClassVar

import ipywidgets as widgets
from matplotlib.figure import Figure

from course_utils import plotting
from course_utils.demos import architectures, canvas, forward, theory, training
from course_utils.style import style_sheet

WIDTHS = (16, 64, 256, 512, 1024)

Drawing = Callable[..., tuple[Figure, str]]


class Demo(widgets.VBox):
    """A question, labelled controls, a figure that follows them, and what it shows in a sentence.

    `controls` maps the names of `draw`'s arguments to widgets. An exception while drawing is shown in the
    demo and raised.
    """

    # JupyterLab delivers the moves of a slider in one thread and clicks on a button in another.
    _lock: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, question: str, controls: dict[str, widgets.Widget], draw: Drawing) -> None:
        self.question, self.controls, self._draw = question, controls, draw
        self._resetting, self._figures = False, {}
        self._defaults = {name: control.value for name, control in controls.items()}
        self.image = widgets.Image(format="jpeg")
        self.sentence = widgets.HTML()
        self.reset_button = widgets.Button(description="Reset", tooltip="Back to the first setting")
        self.reset_button.on_click(lambda _: self.reset())
        for control in controls.values():
            control.observe(lambda _: self.redraw(), names="value")
        panel = widgets.Box([*controls.values(), self.reset_button]).add_class("course-controls")
        self.sentence.add_class("course-sentence")
        super().__init__(
            [style_sheet(), widgets.HTML(f"<b>{question}</b>"), panel, self.image, self.sentence]
        )
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
                with canvas.reusing(self._figures):
                    figure, text = self._draw(**values)
                self.image.value, self.sentence.value = plotting.to_jpeg(canvas.to_image(figure)), text
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


def _load_root_finder() -> None:
    """Load SciPy's: it takes half a second, for which a slider should not wait when it first needs it."""
    import scipy.optimize.elementwise  # noqa: F401


def _slider(
    label: str, value: float, low: float, high: float, step: float, readout: str = ".2f"
) -> widgets.FloatSlider:
    return widgets.FloatSlider(value, min=low, max=high, step=step, description=label, readout_format=readout)


def _log_slider(
    label: str, value: float, low: float, high: float, step: float, readout: str, base: int = 10
) -> widgets.FloatLogSlider:
    """Return a slider whose logarithm goes from `low` to `high` in steps of `step`."""
    return widgets.FloatLogSlider(
        value, base=base, min=low, max=high, step=step, description=label, readout_format=readout
    )


def _integers(label: str, value: int, low: int, high: int, step: int) -> widgets.IntSlider:
    return widgets.IntSlider(value, min=low, max=high, step=step, description=label)


def _choice(label: str, options: Sequence[str], value: str) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, value=value, description=label)


def _one_of(label: str, options: Sequence[int], value: int) -> widgets.SelectionSlider:
    slider = widgets.SelectionSlider(options=options, value=value, description=label)
    return slider.add_class("course-no-typing")


def _width_slider() -> widgets.SelectionSlider:
    return _one_of("width (n)", WIDTHS, 512)


def explosion_demo() -> Demo:
    """Find the weight standard deviation at which 100 layers neither explode nor vanish."""
    return Demo(
        "At which weight standard deviation do 100 layers neither explode nor vanish?",
        {
            "weight_std": _log_slider("weight std (σ)", 1.0, -2.5, 0.5, 0.025, ".4f"),
            "width": _width_slider(),
        },
        forward.explosion_figure,
    )


def fan_demo() -> Demo:
    """Find how many layers a width carries before networks drawn from one law drift apart."""
    return Demo(
        "How deep can networks of width n be before one in three strays from the median by a factor of two?",
        {
            "width": _width_slider(),
            "depth": _integers("depth (L)", 100, 5, 300, 5),
            "seed": _integers("seed", 0, 0, 20, 1),
        },
        forward.fan_figure,
    )


def tanh_demo() -> Demo:
    """Find the gain at which a tanh network neither dies exponentially nor turns chaotic."""
    _load_root_finder()
    return Demo(
        "Which gain keeps both the signal and the gradient of a deep tanh network alive?",
        {
            "gain": _slider("gain (√n × weight std)", 1.0, 0.5, 3.0, 0.05),
            "depth": _integers("depth (L)", 100, 10, 150, 10),
        },
        forward.tanh_figure,
    )


def relu_demo() -> Demo:
    """Find the gain that a leaky ReLU of a given slope needs."""
    return Demo(
        "Which gain does a ReLU that leaks with slope a need?",
        {
            "gain": _slider("gain (√n × weight std)", 1.0, 0.5, 2.5, 0.01),
            "negative_slope": _slider("negative slope (a)", 0.0, 0.0, 1.0, 0.05),
            "width": _width_slider(),
        },
        forward.relu_figure,
    )


def pyramid_demo() -> Demo:
    """Find how uneven widths must be for a choice of fan to lose signal and gradient together."""
    return Demo(
        "How uneven may widths be before a choice of fan has lost nine tenths of both signal and gradient?",
        {
            "shape": _choice("shape of the network", training.SHAPES, "narrowing"),
            "mode": _choice("He's variance: 2 over", training.MODES, "fan_avg"),
            "ratio": _log_slider("widest / narrowest (r)", 4.0, 0, 4, 0.5, ".3g", base=2),
            "depth": _integers("depth (L)", 20, 2, 30, 2),
        },
        training.pyramid_figure,
    )


def first_loss_demo() -> Demo:
    """Find the output bias that gives the lowest first loss for a last layer of a given gain."""
    return Demo(
        "Which output bias gives the lowest first loss, and when is it the class prior ln p?",
        {
            "gain": _log_slider("output gain (√n × std)", 10**0.15, -2, 0.5, 0.05, ".3f"),
            "share": _slider("share of one class (p)", 0.7, 0.01, 0.99, 0.01),
            "classes": _integers("classes (K)", 10, 2, 10, 1),
        },
        training.first_loss_figure,
    )


def first_step_demo() -> Demo:
    """Find the scales of weights that one step of an optimizer can improve, and how depth narrows them."""
    return Demo(
        "Which multiples of He's weights lose 1 % of the loss in one step, and which of them at any depth?",
        {
            "hidden": _integers("hidden layers (H)", 4, 1, 20, 1),
            "rate": _log_slider("learning rate (η)", 0.1, -4, 1, 0.25, ".2g"),
            "optimizer": _choice("optimizer", training.OPTIMIZERS, "SGD"),
        },
        training.first_step_figure,
    )


def pair_demo() -> Demo:
    """Find the gain at which two like and two unlike inputs stay apart for 50 layers."""
    return Demo(
        "Which gain lets a network of 50 layers still tell twins from strangers?",
        {
            "activation": _choice("activation (φ)", ["tanh", "ReLU"], "tanh"),
            "gain": _slider("gain (σ_w = √n × std)", 2.0, 0.7, 3.0, 0.01),
            "bias_std": _slider("bias std (σ_b)", 0.2, 0.0, 1.0, 0.05),
            "depth": _integers("depth (L)", 50, 10, theory.PAIR_DEPTH, 10),
        },
        theory.pair_figure,
    )


def product_demo() -> Demo:
    """Find the depth at which a product of Gaussian matrices has lost half of all directions."""
    return Demo(
        "After how many Gaussian layers is half of all directions lost, and does width help?",
        {
            "weights": _choice("weights (W)", ["orthogonal", "Gaussian"], "Gaussian"),
            "width": _one_of("width (n)", (8, 16, 32, 64), 32),
            "depth": _integers("depth (L)", 5, 1, theory.PRODUCT_DEPTH, 1),
        },
        theory.product_figure,
    )


def gradient_demo() -> Demo:
    """Find the residual branch that roughens the gradient no more than one plain layer does."""
    architectures = ["plain", "normalized", "looks-linear", "residual"]
    return Demo(
        "How small must residual branches be to roughen the gradient less than one plain layer does?",
        {
            "architecture": _choice("architecture", architectures, "residual"),
            "branch": _slider("residual branch × (β)", 1.0, 0.02, 2.0, 0.02),
            "depth": _integers("depth (L)", 24, 1, theory.CIRCLE_DEPTH, 1),
        },
        theory.gradient_figure,
    )


def length_demo() -> Demo:
    """Find how exactly the gain must be hit for 10,000 layers, and which weights allow it."""
    laws = ["delta-orthogonal", "flattened orthogonal", "Gaussian"]
    return Demo(
        "How exactly must the gain be hit for 10,000 layers, and which weights allow it?",
        {
            "weights": _choice("weights (W)", laws, "Gaussian"),
            "gain": _slider("gain (√fan_in × std)", 1.0, 0.98, 1.04, 0.0001, ".4f"),
            "width": _one_of("units or channels (n)", (16, 64, 256, 1024, 4096, 16384), 64),
            "depth": _log_slider("depth (L)", 10_000, 1, 4, 0.1, ",.0f"),
        },
        theory.length_figure,
    )


def norm_demo() -> Demo:
    """Find how many layers of batch norm the gradient survives, and what a larger batch buys."""
    return Demo(
        "How many layers with batch norm keep the gradient within a factor of 100, and do more images help?",
        {
            "norm": _choice("norm", tuple(architectures.NORMS), "batch norm"),
            "batch": _integers("images per batch (B)", 8, 6, 32, 1),
            "depth": _integers("depth (L)", 50, 5, 50, 1),
        },
        architectures.norm_figure,
    )


def stream_demo() -> Demo:
    """Find the branch scale that a residual stream of L blocks needs, with and without norms."""
    return Demo(
        "Which branch scale keeps the stream of L blocks, and its input's share, within a factor of ten?",
        {
            "scale": _log_slider("branch scale (s)", 1.0, -2, 0, 0.02, ".3f"),
            "blocks": _integers("blocks (L)", 48, 4, 96, 4),
            "norm": _choice("norm", architectures.STREAMS, "no norm"),
            "width": _width_slider(),
        },
        architectures.stream_figure,
    )


def pruning_demo() -> Demo:
    """Find how few links a unit needs, and what must happen to those that remain."""
    return Demo(
        "How few links per unit keep the signal of ten ReLU layers within a factor of ten?",
        {
            "removed": _choice("weights removed", architectures.PRUNINGS, "the smallest"),
            "others": _choice("weights that remain", ("as they are", "rescaled"), "as they are"),
            "kept": _log_slider("share kept (p)", 0.1, -1.7, 0, 0.05, ".3f"),
        },
        architectures.pruning_figure,
    )


def gain_demo() -> Demo:
    """Find the rule, if there is one, that keeps signal and gradient of fifty layers alive."""
    _load_root_finder()
    return Demo(
        "Which rule keeps your activation's signal and gradient within a factor of 30 for fifty layers?",
        {
            "activation": _choice("activation (φ)", tuple(architectures.ACTIVATIONS), "GELU"),
            "rule": _choice("rule for the gain (g)", architectures.RULES, "He: √2"),
            "depth": _integers("depth (L)", 50, 5, 50, 1),
            "width": _one_of("width (n)", architectures.GAIN_WIDTHS, 128),
        },
        architectures.gain_figure,
    )
