"""Notebook 03: which gain keeps signal and gradient of a deep tanh network alive."""

import math
from functools import lru_cache, partial

import numpy as np

from course_utils import comparison, mean_field, network_laws, plotting, propagation
from course_utils.activations import tanh
from course_utils.demos import canvas, demo

NETWORKS, WIDTH, DEEPEST, FACTOR = 12, 256, 100, 30
_theory = lru_cache(maxsize=64)(network_laws.signal_and_gradient)


@demo.asks(
    "Which gain keeps both signal and gradient of a deep tanh network alive, within a factor of 30?",
    gain=demo.slider("gain (√n × weight std)", 0.5, 3.0, 0.05),
    depth=demo.integers("depth (L)", 10, DEEPEST, 10),
)
def tanh_figure(gain: float = 1.5, depth: int = 100) -> demo.Drawing:
    """Draw the map q -> q' of tanh with its staircase, and the RMS of signal and gradient by layer.

    Both of pre-activations, and relative to where they start: layer 0 is the first that has weights, and
    `depth` layers more follow.
    """
    q, chi = _theory(tanh, (gain, gain), DEEPEST + 1)
    theory = np.sqrt(network_laws.relative_moments(q[: depth + 1], chi[: depth + 1]))
    draws = demo.normals(DEEPEST + 1, 2, NETWORKS, WIDTH)[: depth + 1]
    signal, gradient = propagation.gradient_chain(tanh, (gain, gain), draws)
    squares = signal / signal[:, :1], gradient
    figure, (left, right) = canvas.new_figure(2)
    stop = next(stop for stop in (1, 2.5, 10) if stop >= 1.1 * gain**2)
    plotting.plot_cobweb(lambda q: mean_field.length_map(tanh, q, gain), gain**2, 15, stop=stop, ax=left)
    left.set(xlabel="q in this layer", ylabel="q' in the next", title=f"The map at gain {gain:.2f}")
    left.locator_params(nbins=3)
    style = {"x": 0.6, "center": lambda rms, axis: np.sqrt(np.square(rms).mean(axis=axis))}
    canvas.plot_relative(right, range(depth + 1), theory, np.sqrt(squares), ("signal", "gradient"), **style)
    canvas.shade(right, FACTOR, below=True)  # the gradient is above
    title = f"Predicted: gradient × {theory[1, 0]:.3g}"
    canvas.set_layers(right, depth, ylabel="RMS, relative", title=title)
    ends = squares[0][:, -1], squares[1][:, 0]
    within = (np.abs(np.log(ends)) <= 2 * math.log(FACTOR)).all(axis=0).sum()
    versus = partial(demo.versus, of=comparison.root_mean_of)
    up, down = map(versus, (theory[0, -1], theory[1, 0]), ends)
    return figure, (
        f"Factor of the RMS over {depth} layers: signal {up}; gradient, on its way down, {down} (root mean "
        f"squares of {NETWORKS} networks of width {WIDTH}). {within} of them keep both within a factor of "
        f"{FACTOR}."
    )
