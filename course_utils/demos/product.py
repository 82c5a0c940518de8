"""Notebook 09: after how many layers half of all directions are lost."""

from functools import lru_cache

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from course_utils import comparison, finite_width, plotting, propagation
from course_utils.demos import canvas
from course_utils.demos.demo import Demo, choice, integers, luck, one_of, pick, plural
from course_utils.initializers import lecun_normal_, orthogonal_

DEEPEST = 50
WEIGHTS = {"orthogonal": orthogonal_, "Gaussian": lecun_normal_}  # with Var(w) = 1 / width


def product_demo() -> Demo:
    """Find the depth at which a product of Gaussian matrices has lost half of all directions."""
    return Demo(
        "After how many Gaussian layers is half of all directions lost, and does width help?",
        {
            "weights": choice("weights (W)", tuple(WEIGHTS), "Gaussian"),
            "width": one_of("width (n)", (8, 16, 32, 64), 32),
            "depth": integers("depth (L)", 5, 1, DEEPEST),
        },
        product_figure,
    )


@lru_cache(maxsize=4)
def products(weights: str, width: int) -> torch.Tensor:
    """Return the products of the first 1 to DEEPEST random matrices, (depth, products, width, width)."""
    count = 4 if weights == "orthogonal" else 10 if width > 32 else 20
    init_ = pick("weights", WEIGHTS, weights)
    return propagation.matrix_products(init_, width, DEEPEST, count=count, generator=luck())


def usable(log10_s: NDArray) -> NDArray:
    """Return the share of directions that lose less than a factor of 1,000 against the best one."""
    return (log10_s > log10_s.max(axis=-1, keepdims=True) - 3).mean(axis=-1)


def product_figure(weights: str = "Gaussian", width: int = 32, depth: int = 5) -> tuple[Figure, str]:
    """Draw all singular values of a product of `depth` matrices with Var(w) = 1 / width, largest first.

    `weights` is "Gaussian" or "orthogonal"; `depth` is at most 50. Two laws are drawn: that of wide products
    and that of deep ones.
    """
    s = np.log10(torch.linalg.svdvals(products(weights, width)[depth - 1]).numpy())
    laws = {"predicted for L ≪ n": finite_width.wide_product_law}
    laws["predicted for L ≫ n"] = finite_width.deep_product_law
    theory = {name: 0 * s[0] if weights == "orthogonal" else law(depth, width) for name, law in laws.items()}
    figure, (ax,) = canvas.new_figure()
    share = (np.arange(width) + 0.5) / width
    plotting.plot_samples(share, s, ax=ax)
    for (name, law), style, linewidth in zip(theory.items(), ("k--", "k:"), (1.5, 2), strict=True):
        ax.plot(share, law, style, label=name, linewidth=linewidth)
    canvas.name_lines(ax, (0.66, 0.92), (0.66, 0.85))
    floor = np.median(s[:, 0]) - 3
    ax.axhline(floor, color=plotting.ORANGE, linewidth=1)
    free = {"x": 0.01, "va": "top"} if depth < 25 else {"x": 0.99, "va": "bottom", "ha": "right"}
    ax.text(y=floor, s="1,000 times below the largest", color=plotting.ORANGE, **free)
    found = comparison.mean_of(100 * usable(s))
    ax.set(
        xlabel="share of directions (k/n), best first",
        ylabel="log10 of singular value (s)",
        xlim=(0, 1),
        ylim=(-9, 2.6),
        title=f"{plural(depth, f'{weights} layer')}: {found.value:.0f} % of the directions are usable",
    )
    wide, deep = (100 * usable(law) for law in theory.values())
    return figure, (
        f"Directions that lose less than a factor of 1,000 against the best one: predicted {wide:.0f} % for "
        f"L ≪ n and {deep:.0f} % for L ≫ n; measured over {len(s)} products {found:.1f} %. "
        f"(What is below 10^-9 is not drawn.)"
    )
