"""Notebook 14: how many tokens share one token's attention, by the size of its logits."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from course_utils import attention_laws, plotting
from course_utils.demos import canvas, demo

ROWS, MOST = 200, 64
STDS = np.geomspace(0.1, 10, 41)
MEASURED = STDS[::5]


def softmax(logits: NDArray) -> NDArray:
    """Return the softmax over the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@cache
def concentrations(tokens: int) -> tuple[NDArray, NDArray]:
    """Return the predicted sum of squared shares at `STDS`, and those of drawn rows at `MEASURED`."""
    theory = np.array([attention_laws.concentration(std**2, tokens) for std in STDS])
    logits = demo.normals(ROWS, MOST)[:, :tokens]
    return theory, np.array([(softmax(std * logits) ** 2).sum(axis=1) for std in MEASURED])


@demo.asks(
    "How large must the logits be until only two tokens share a token's attention (Σp² = 1/2)?",
    std=demo.log_slider("std of the logits (σ)", -1, 1, 0.05, ".2f"),
    tokens=demo.one_of("tokens (T)", (4, 8, 16, 32, MOST)),
)
def shares_figure(std: float = 1.0, tokens: int = 8) -> demo.Drawing:
    """Draw one random row of attention, and the sum of its squared shares by the logits' std, predicted."""
    p = softmax(std * demo.normals(ROWS, MOST)[:, :tokens])
    squares, expected = (p**2).sum(axis=1), attention_laws.concentration(std**2, tokens)
    figure, (row, curve) = canvas.new_figure(2)
    row.plot(np.arange(1, tokens + 1), p[0], "o", color=plotting.BLUE)
    plotting.mark_level(row, 1 / tokens, "1/T", tokens + 1, va="bottom", ha="right")
    row.set(
        xlabel="token (j)",
        ylabel="share (p)",
        xlim=(0, tokens + 1),
        xticks=(1, tokens // 2, tokens),
        ylim=(-0.03, 1.03),
    )
    row.set_title(f"One drawn row: the largest share is {p[0].max():.2f}")
    theory, measured = concentrations(tokens)
    plotting.plot_samples(MEASURED, measured.T, ax=curve, center=np.mean)
    curve.plot(STDS, theory, "k--")
    curve.plot(std, expected, "D", color=plotting.ORANGE, markersize=12, fillstyle="none")
    plotting.mark_level(curve, 0.5, "two tokens", 0.1, va="bottom")
    curve.set(xscale="log", xlim=(0.09, 11), xlabel="std of the logits (σ)")
    curve.set(ylabel="sum of squared shares (Σp²)", ylim=(-0.03, 1.03))
    curve.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
    curve.minorticks_off()
    curve.set_title(f"Predicted: {1 / expected:.1f} of {tokens} tokens share it")
    entropy = attention_laws.entropy(std**2, tokens)
    drawn = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1)
    side = "more than two" if expected < 0.5 else "fewer than two"
    return figure, (
        f"Over {ROWS} drawn rows of {tokens} logits: Σp² {demo.versus(expected, squares)}, entropy "
        f"{demo.versus(entropy, drawn)} of ln T = {math.log(tokens):.2f} nats. So {side} tokens share it."
    )
