"""Interactive demos: sliders over pure functions.

Each `*_figure` function turns numbers into a figure and a sentence, and can be called without a browser; each
`*_demo` function puts controls over it. Figures go into an `Image` widget: nothing is printed, so a stored
notebook stays free of widget output.
"""

from collections.abc import Callable, Sequence

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils import activations, comparison, mean_field, plotting, propagation
from course_utils.activations import Activation

NETWORKS = 20
WIDTHS = (16, 64, 256, 512, 1024)
FLOAT32 = torch.finfo(torch.float32)

Drawing = Callable[..., tuple[Figure, str]]


class Demo(widgets.VBox):
    """A question, labelled controls, a figure that follows them, and what it shows in a sentence.

    `controls` maps the names of `draw`'s arguments to widgets. An exception while drawing is shown in the
    demo and raised.
    """

    def __init__(self, question: str, controls: dict[str, widgets.Widget], draw: Drawing) -> None:
        self.question, self.controls, self._draw = question, controls, draw
        self._resetting = False
        self._defaults = {name: control.value for name, control in controls.items()}
        self.image = widgets.Image(format="png", layout=widgets.Layout(width="720px"))
        self.sentence = widgets.HTML()
        self.reset_button = widgets.Button(description="Reset", tooltip="Back to the first setting")
        self.reset_button.on_click(lambda _: self.reset())
        for control in controls.values():
            control.style.description_width = "13em"
            control.layout.width = "34em"
            control.observe(lambda _: self.redraw(), names="value")
        super().__init__(
            [
                widgets.HTML(f"<b>{question}</b>"),
                *controls.values(),
                self.reset_button,
                self.image,
                self.sentence,
            ]
        )
        self.redraw()

    def __repr__(self) -> str:
        return f"Demo: {self.question}"

    def redraw(self) -> None:
        """Draw the figure and the sentence for the controls' present values."""
        if self._resetting:
            return
        try:
            figure, text = self._draw(**{name: control.value for name, control in self.controls.items()})
        except Exception as error:
            self.sentence.value = f"<b>This setting could not be drawn:</b> {type(error).__name__}: {error}"
            raise
        self.image.value, self.sentence.value = plotting.to_png(figure), text

    def reset(self) -> None:
        """Put every control back to the value it started with, and draw once."""
        self._resetting = True
        for name, value in self._defaults.items():
            self.controls[name].value = value
        self._resetting = False
        self.redraw()


def _new_figure(columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    # Fixed margins: a layout engine would draw everything twice, and a slider waits for each drawing.
    figure = Figure(figsize=(9, 4), layout="none")
    figure.subplots_adjust(left=0.12, right=0.98, bottom=0.16, top=0.9, wspace=0.3)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _slider(label: str, value: float, low: float, high: float, step: float) -> widgets.FloatSlider:
    return widgets.FloatSlider(value, min=low, max=high, step=step, description=label)


def _width_slider() -> widgets.SelectionSlider:
    return widgets.SelectionSlider(options=WIDTHS, value=512, description="width (n)")


def _networks(width: int, depth: int, activation: Activation, gain: float) -> propagation.Profile:
    """Return NETWORKS networks from one seed, so that a slider changes the setting and not the luck."""
    return propagation.norm_chain(NETWORKS, width, depth, activation, gain, np.random.default_rng(0))


def explosion_figure(weight_std: float = 1.0, width: int = 512, depth: int = 100) -> tuple[Figure, str]:
    """Draw log10 RMS by layer for linear networks with weights N(0, weight_std**2), and float32's limits.

    Works with logarithms, so that no signal leaves the numbers that the figure itself is computed with.
    """
    factor = np.sqrt(width) * weight_std
    layers = np.arange(depth + 1)
    unit = np.log10(_networks(width, depth, activations.linear, 1.0).rms)
    figure, (ax,) = _new_figure()
    low, median, high = np.percentile(unit + layers * np.log10(factor), [2.5, 50, 97.5], axis=0)
    ax.fill_between(layers, low, high, color=plotting.BLUE, alpha=0.2, label=f"95 % of {NETWORKS} networks")
    ax.plot(layers[::5], median[::5], "o", color=plotting.BLUE, label="measured median")
    ax.plot(layers, layers * np.log10(factor), "k--", label="predicted: l · log10(√n σ)")
    for limit, name in (
        (FLOAT32.max, "largest float32"),
        (FLOAT32.smallest_normal * FLOAT32.eps, "smallest float32"),
    ):
        ax.axhline(np.log10(limit), color=plotting.ORANGE, linewidth=1)
        ax.text(depth, np.log10(limit), name, ha="right", va="bottom", color=plotting.ORANGE)
    ax.set(
        xlabel="layer (l)",
        ylabel="log10 of RMS",
        ylim=(-75, 60),
        title=f"Each layer multiplies by {factor:.3g}",
    )
    ax.legend(loc="upper left" if factor < 1 else "lower left")
    return figure, _float32_sentence(factor, depth)


def _float32_sentence(factor: float, depth: int) -> str:
    if factor == 1:
        return "Each layer is predicted to multiply the RMS by √n σ = 1: it stays at 1."
    limit = FLOAT32.max if factor > 1 else FLOAT32.smallest_normal * FLOAT32.eps
    layer = mean_field.crossing_layer(limit, factor)
    fate = f"leaves float32 in layer {np.ceil(layer):.0f}" if layer < depth else "is still within float32"
    return (
        f"Each layer is predicted to multiply the RMS by √n σ = {factor:.4g}. After layer {depth} that makes "
        f"10^{depth * np.log10(factor):.1f}; the signal {fate}."
    )


def explosion_demo() -> Demo:
    """Find the weight standard deviation at which 100 layers neither explode nor vanish."""
    return Demo(
        "At which weight standard deviation do 100 layers neither explode nor vanish?",
        {
            "weight_std": widgets.FloatLogSlider(
                1.0,
                base=10,
                min=-2.5,
                max=0.5,
                step=0.025,
                description="weight std (σ)",
                readout_format=".4f",
            ),
            "width": _width_slider(),
        },
        explosion_figure,
    )


def fan_figure(width: int = 512, depth: int = 100) -> tuple[Figure, str]:
    """Draw networks with Var(w) = 1/width as a fan by layer, with the log-normal law's quantiles."""
    # One factor chi2_n / n for the random input and one for each layer.
    growth, noise = mean_field.exact_log_growth(activations.linear, 1.0, width)
    mean, variance = growth * np.arange(1, depth + 2), noise * np.arange(1, depth + 2)
    rms = propagation.norm_chain(1000, width, depth, activations.linear, 1.0, np.random.default_rng(0)).rms
    figure, (ax,) = _new_figure()
    quantiles = (np.exp((mean + k * np.sqrt(variance)) / 2) for k in (-1.96, 0, 1.96))
    plotting.plot_fan(rms, *quantiles, ax=ax)
    ax.set(
        ylabel="RMS of the layer",
        title=f"1,000 networks, depth / width = {depth / width:.2g}",
    )
    bottom, top = ax.get_ylim()
    ax.set_ylim(
        min(bottom, 0.1), max(top, 10)
    )  # one scale for most settings, so that the fan is seen to open
    spread, predicted = comparison.std_of(np.log(rms[:, -1])), np.sqrt(variance[-1]) / 2
    return figure, (
        f"Standard deviation of ln RMS at layer {depth}: predicted {predicted:.3f} (about √(L/2n)), measured "
        f"over 1,000 networks {spread.value:.3f} ± {spread.standard_error:.3f}. Two networks in three "
        f"lie within a factor {np.exp(predicted):.2f} of the median {np.exp(mean[-1] / 2):.2g}."
    )


def fan_demo() -> Demo:
    """Find how many layers a width carries before networks drawn from one law drift apart."""
    return Demo(
        "How deep can networks of width n be before one in three strays from the median by a factor of two?",
        {
            "width": _width_slider(),
            "depth": widgets.IntSlider(100, min=5, max=300, step=5, description="depth (L)"),
        },
        fan_figure,
    )


def tanh_figure(gain: float = 1.0, width: int = 256, depth: int = 100) -> tuple[Figure, str]:
    """Draw the map q -> q' of tanh with its staircase, and the RMS by layer with the infinite-width line."""
    figure, (left, right) = _new_figure(2)
    stop = max(1.0, 1.1 * gain**2)
    plotting.plot_cobweb(
        lambda q: mean_field.length_map(q, activations.tanh, gain), min(gain**2, stop), 30, stop=stop, ax=left
    )
    left.set(xlabel="q in this layer", ylabel="q' in the next", title=f"The map at gain {gain:.2f}")
    theory = np.sqrt(mean_field.second_moment_profile(activations.tanh, gain, depth))
    rms = _networks(width, depth, activations.tanh, gain).rms
    plotting.plot_signal(rms, theory, ax=right)
    right.set(
        ylabel="RMS of the layer",
        title=f"{NETWORKS} networks of width {width}",
        ylim=(min(1e-3, theory[-1] / 10), 2),
    )
    q = mean_field.fixed_point(activations.tanh, gain)
    slope = np.sqrt(mean_field.chi_1(activations.tanh, gain, q))
    return figure, (
        f"Predicted RMS at layer {depth}: {theory[-1]:.4g}; measured median {np.median(rms[:, -1]):.4g}. "
        f"Fixed point q* = {q:.4g}; there each layer multiplies a gradient by √χ₁ = {slope:.4g}."
    )


def tanh_demo() -> Demo:
    """Find the gain at which a tanh network neither dies exponentially nor turns chaotic."""
    return Demo(
        "Which gain keeps both the signal and the gradient of a deep tanh network alive?",
        {
            "gain": _slider("gain (√n × weight std)", 1.0, 0.5, 3.0, 0.05),
            "depth": widgets.IntSlider(100, min=10, max=150, step=10, description="depth (L)"),
        },
        tanh_figure,
    )


def relu_figure(
    gain: float = 1.0, negative_slope: float = 0.0, width: int = 512, depth: int = 50
) -> tuple[Figure, str]:
    """Draw the RMS by layer of (leaky) ReLU networks with Var(w) = gain**2 / width, and the predicted line.

    The activation is homogeneous, so networks of every gain are those of gain 1 times gain**layer.
    """
    factor, layers = gain * np.sqrt((1 + negative_slope**2) / 2), np.arange(depth + 1)
    rms = _networks(width, depth, activations.leaky_relu(negative_slope), 1.0).rms * gain**layers
    figure, (ax,) = _new_figure()
    plotting.plot_signal(rms, factor**layers, ax=ax)
    ax.set(
        ylabel="RMS of the layer",
        title=f"Predicted: each layer multiplies the RMS by {factor:.3f}",
        ylim=(1e-24, 1e24),
        yticks=10.0 ** np.arange(-24, 25, 8),
    )
    return figure, (
        f"Predicted factor per layer: gain × √((1 + a²)/2) = {factor:.4f}. RMS at layer {depth}: predicted "
        f"{factor**depth:.3g}, measured median {np.median(rms[:, -1]):.3g}. (Finite width pulls the median "
        f"below the prediction.)"
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
        relu_figure,
    )
