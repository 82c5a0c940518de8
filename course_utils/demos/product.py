"""Notebook 09: after how many layers half of all directions are lost."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from course_utils import comparison, network_laws, plotting, propagation
from course_utils.demos import canvas, demo
from course_utils.initializers import lecun_normal_, orthogonal_

DEEPEST = 50
WEIGHTS = {"orthogonal": orthogonal_, "Gaussian": lecun_normal_}  # with Var(w) = 1 / width


@lru_cache(maxsize=4)
def products(weights: str, width: int) -> torch.Tensor:
    """Return the products of the first 1 to DEEPEST random matrices, (depth, products, width, width)."""
    count = 4 if weights == "orthogonal" else 10 if width > 32 else 20
    init_ = demo.pick("weights", WEIGHTS, weights)
    return propagation.matrix_products(init_, width, DEEPEST, count=count, generator=demo.luck())


def usable(log10_s: NDArray) -> NDArray:
    """Return the share of directions that lose less than a factor of 1,000 against the best one."""
    return (log10_s > log10_s.max(axis=-1, keepdims=True) - 3).mean(axis=-1)


@demo.asks(
    "After how many Gaussian layers is half of all directions lost, and does width help?",
    weights=demo.choice("weights (W)", WEIGHTS),
    width=demo.one_of("width (n)", (8, 16, 32, 64)),
    depth=demo.integers("depth (L)", 1, DEEPEST, 1),
)
def product_figure(weights: str = "Gaussian", width: int = 32, depth: int = 5) -> demo.Drawing:
    """Draw the singular values of products of `depth` matrices with Var(w) = 1 / width, and both laws."""
    s = np.log10(torch.linalg.svdvals(products(weights, width)[depth - 1]).numpy())
    laws = [network_laws.wide_product_law(depth, width), network_laws.deep_product_law(depth, width)]
    if weights == "orthogonal":
        laws = [np.zeros(width)] * 2
    figure, (ax,) = canvas.new_figure()
    share = (np.arange(width) + 0.5) / width
    plotting.plot_samples(share, s, ax=ax)
    ax.plot(share, laws[0], "k--", label="predicted for L ≪ n")
    ax.plot(share, laws[1], "k:", label="predicted for L ≫ n", linewidth=2)
    canvas.name_lines(ax, (0.66, 0.92), (0.66, 0.85))
    x, style = (0.01, {"va": "top"}) if depth < 25 else (0.99, {"va": "bottom", "ha": "right"})
    floor = np.median(s[:, 0]) - 3
    plotting.mark_level(ax, floor, "1,000 times below the largest", x, color=plotting.ORANGE, **style)
    found = comparison.mean_of(100 * usable(s))
    ax.set(xlabel="share of directions (k/n), best first", xlim=(0, 1))
    ax.set(ylabel="log10 of singular value (s)", ylim=(-9, 2.6))
    layers = f"{depth} {weights} layer{'s' * (depth > 1)}"
    ax.set_title(f"{layers}: {found.value:.0f} % of the directions are usable")
    wide, deep = (100 * usable(law) for law in laws)
    return figure, (
        f"Directions that lose less than a factor of 1,000 against the best one: predicted {wide:.0f} % for "
        f"L ≪ n and {deep:.0f} % for L ≫ n; measured over {len(s)} products {found:.1f} %. "
        f"(What is below 10^-9 is not drawn.)"
    )
