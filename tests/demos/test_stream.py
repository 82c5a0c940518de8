"""Residual streams: lines and verdicts, and the law without matrices against real networks."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from drawing_checks import check_line, check_numbers, check_samples, check_words, named, two, z_score

from course_utils import network_laws, propagation
from course_utils.comparison import compare, mean_of, median_of
from course_utils.demos.stream import NORMS, stream_figure

SETTINGS = {"scale": 0.5, "blocks": 12, "norm": "no norm", "width": 64}
CONTROLS = {
    "scale": (0.01, 1, 101),
    "blocks": (4, 96, 24),
    "norm": ("no norm", "pre-norm", "post-norm"),
    "width": (16, 64, 256, 512, 1024),
}
LABELS = ["branch scale (s)", "blocks (L)", "norm", "width (n)"]


@cache
def streams(scale, branches, norm, width, count=200):
    draws = propagation.branch_draws(192, width, count=count, generator=torch.Generator().manual_seed(0))
    return propagation.residual_stream(scale, norm, [table[:branches] for table in draws])


def check(figure, sentence):
    (ax,), k = figure.axes, np.arange(25)
    moments, shares = streams(0.5, 24, "no norm", 64)
    m, theory, part, part_theory = ax.lines
    assert (m, part) == (named(ax, "stream (mₖ)"), named(ax, "share of its input"))
    check_samples(ax, m, k, moments)
    check_samples(ax, part, k, shares, np.mean)
    check_line(theory, 1.25**k, k)
    share = 1.25**-k + (1 - 1.25**-k) / 64
    check_line(part_theory, share, k)
    heading = f"12 blocks, predicted: stream {1.25**24:.3g}, share of its input {share[-1]:.2g}"
    check_words(ax, "branch (k)", "second moment, and share", heading)
    stream = f"{24 * math.log10(1.25):.3f}", 200, *two(median_of(np.log10(moments[:, -1])))
    check_numbers(sentence, 24, *stream, f"{share[-1]:.3g}", *two(mean_of(shares[:, -1])))
    assert sentence.endswith(": neither.")


def real_streams(scale, branches, normalization, width, networks):
    """Return second moment and squared cosine with the input, (networks, 2), of real residual networks."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(networks, 1, width, generator=generator, dtype=torch.float64)
    x = start = torch.nn.functional.layer_norm(x, (width,), eps=0)
    for _ in range(branches):
        shape = (2, networks, width, width)
        W1, W2 = torch.randn(*shape, generator=generator, dtype=torch.float64) / math.sqrt(width)
        h = torch.nn.functional.layer_norm(x, (width,), eps=0) if normalization == "pre-norm" else x
        x = x + scale * math.sqrt(2) * torch.relu(h @ W1) @ W2
        if normalization == "post-norm":
            x = torch.nn.functional.layer_norm(x, (width,), eps=0)
    cosine = torch.cosine_similarity(x, start, dim=2)
    return torch.cat([x.square().mean(dim=2), cosine**2], dim=1).numpy()


@pytest.mark.parametrize("normalization", NORMS)
def test_streams_without_matrices_have_the_law_of_those_with(normalization):
    moments, shares = streams(0.6, 5, normalization, 4, count=3000)
    real = real_streams(0.6, 5, normalization, 4, 20_000)
    assert abs(z_score(shares[:, -1], real[:, 1])) < 4
    assert abs(z_score(np.sqrt(shares[:, -1]), np.sqrt(real[:, 1]))) < 4
    if normalization == "post-norm":
        np.testing.assert_allclose(moments, 1.0)
    else:
        for power in (1, 2):
            assert abs(z_score(np.log(moments[:, -1]) ** power, np.log(real[:, 0]) ** power)) < 4, power


@pytest.mark.parametrize(("normalization", "grown"), [("no norm", 1.09**8), ("pre-norm", 1.72)])
def test_streams_grow_as_a_power_or_as_a_sum(normalization, grown):
    moments, shares = streams(0.3, 8, normalization, 64)
    theory, share = network_laws.stream_law(0.3, 8, normalization, 64)
    assert theory[-1] == pytest.approx(grown)
    assert share[-1] == pytest.approx(1 / grown + (1 - 1 / grown) / 64)
    compare(("second moment", grown, mean_of(moments[:, -1])))
    assert share[-1] == pytest.approx(shares[:, -1].mean(), rel=0.03)


def test_post_norm_keeps_the_size_and_forgets():
    theory, share = network_laws.stream_law(1.0, 40, "post-norm", 64)
    assert (theory == 1).all()
    assert share[1] == pytest.approx(1 / 2 + 1 / 2 / 63)
    assert share[-1] == pytest.approx(1 / 63)
    assert "sets its second moment to 1" in stream_figure(1.0, 20, "post-norm", 64)[1]


@pytest.mark.parametrize(
    ("scale", "normalization", "verdict"),
    [
        (0.05, "no norm", ": both."),
        (1.0, "no norm", ": neither."),
        (1.0, "post-norm", ": the stream only."),
    ],
)
def test_the_stream_is_judged_by_its_prediction(scale, normalization, verdict):
    assert verdict in stream_figure(scale, 48, normalization, 512)[1]
