"""Drawings of notebooks 12 to 15: lines and numbers against formulas written anew, laws against matrices."""

import math

import numpy as np
import pytest
import torch
from drawing_checks import check_drawing, check_line, check_numbers, z_score
from matplotlib.collections import LineCollection
from scipy.stats import norm

from course_utils.activations import gelu, tanh
from course_utils.comparison import compare, mean_of, median_of
from course_utils.demos import architectures as drawings

Z = np.linspace(-12, 12, 200_001)
DENSITY = np.exp(-(Z**2) / 2) * (Z[1] - Z[0]) / math.sqrt(2 * math.pi)


def expected(f, std=1.0):
    """Return E f(std Z) by the trapezoidal rule."""
    return float(f(torch.from_numpy(std * Z)).numpy() @ DENSITY)


def title(figure):
    """Return the title of the first axes, wherever the style puts it."""
    return figure.axes[0].get_title() or figure.axes[0].get_title(loc="left")


def two(estimate):
    """Return value and standard error, with two digits of the latter, as text."""
    digits = 1 - math.floor(math.log10(estimate.standard_error))
    return f"{estimate.value:.{digits}f}", f"{estimate.standard_error:.{digits}f}"


def batch_growth(batch):
    """Return the factor of batch norm and ReLU on squared gradients, and 1 - k at correlation -1/(B - 1)."""
    angle = math.acos(-1 / (batch - 1))
    k = (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
    on = (math.pi - angle) / (2 * math.pi)  # the probability that both of two images are on
    return (1 - (1 - 2 * on) / batch - (1 - k) / batch) * batch / (batch - 3) / (1 - k), 1 - k


def check_norm(figure, sentence):
    layers, r = np.arange(16), batch_growth(12)[0]
    measured = drawings._norm_gradients("batch norm", 12, 15)
    markers, theory, limit = figure.axes[0].lines
    check_line(markers, np.median(measured, axis=0), layers)
    check_line(theory, r ** ((15 - layers) / 2), layers)
    check_line(limit, (1 - 1 / math.pi) ** ((layers - 15) / 2), layers)
    logs = mean_of(np.log10(measured[:, 0]))
    check_numbers(sentence, "12", "15", f"{7.5 * math.log10(r):.2f}", *(f"{x:.2f}" for x in logs))
    assert title(figure).endswith(f"by {r**7.5:.3g}")


def check_branches(figure, sentence):
    growth, kept = batch_growth(20)
    theory = [1.0]
    for layer in range(25, 0, -1):
        theory.insert(0, theory[0] * math.sqrt(1 + growth * kept / (1 + layer * kept)))
    markers, line = figure.axes[0].lines
    measured = drawings._norm_gradients("batch norm in branches", 20, 25)
    check_line(markers, np.median(measured, axis=0)[::2], np.arange(0, 26, 2))
    check_line(line, theory, np.arange(26))
    logs = mean_of(np.log10(measured[:, 0]))
    check_numbers(sentence, "20", "25", f"{math.log10(theory[0]):.2f}", *(f"{x:.2f}" for x in logs))


def check_stream(figure, sentence):
    k, s = np.arange(25), 0.5
    moments, shares = drawings._streams(s, 24, "no norm", 64)
    m, theory, part, part_theory = figure.axes[0].lines
    check_line(m, np.median(moments, axis=0)[::2], k[::2])
    check_line(theory, 1.25**k, k)
    check_line(part, shares.mean(axis=0)[::2], k[::2])
    share = 1.25**-k + (1 - 1.25**-k) / 64
    check_line(part_theory, share, k)
    measured = two(median_of(np.log10(moments[:, -1]))) + two(mean_of(shares[:, -1]))
    check_numbers(sentence, "24", f"{24 * math.log10(1.25):.3f}", f"{share[-1]:.3g}", *measured)
    assert sentence.endswith(": neither.")


def check_pruning(figure, sentence):
    p, n, layers = 0.2, 128, np.arange(11)
    t = norm.isf(p / 2)
    moments = [expected(lambda z, k=k: z**k * (abs(z) > t)) for k in (2, 4)]
    factor, kurtosis = moments[0], moments[1] / moments[0] ** 2
    outputs, variance = 3.0, [math.log(1 + 2 / n)]
    for _ in range(10):
        outputs = 2 * (3 + (kurtosis - 3) * outputs / n)
        variance.append(variance[-1] + math.log(1 + (outputs - 1) / n))
    measured = drawings._pruned_signals("the smallest", p)
    means, theory, low, high = figure.axes[0].lines
    check_line(means, measured.mean(axis=0), layers)
    segments = next(c for c in figure.axes[0].collections if isinstance(c, LineCollection)).get_segments()
    errors = 2 * measured.std(axis=0, ddof=1) / math.sqrt(len(measured))
    np.testing.assert_allclose([bar[1, 1] for bar in segments], measured.mean(axis=0) + errors)
    np.testing.assert_allclose(theory.get_ydata(), factor**layers, rtol=1e-3)  # the rule smears the cut
    for line, k in ((low, -1.96), (high, 1.96)):
        band = theory.get_ydata() * np.exp(k * np.sqrt(variance) - np.array(variance) / 2)
        np.testing.assert_allclose(line.get_ydata(), band, rtol=1e-3)
    ratio = two(mean_of(measured[:, -1] / theory.get_ydata()[-1]))
    check_numbers(sentence, "10", f"{factor**10:.3g}", *ratio, f"{math.sqrt(variance[-1]):.2f}")


def gelu_theory(gain, first, depth):
    """Return q and chi_1 by layer."""
    q = [first**2]
    for _ in range(depth - 1):
        q.append(gain**2 * expected(lambda z: gelu(z) ** 2, math.sqrt(q[-1])))
    return np.array(q), [gain**2 * expected(lambda z: gelu.derivative(z) ** 2, math.sqrt(x)) for x in q]


def check_gain(figure, sentence):
    gain = 1 / math.sqrt(expected(lambda z: gelu(z) ** 2))
    q, chi = gelu_theory(gain, 1.0, 20)
    gradient = [np.prod(chi[layer:-1]) for layer in range(20)]
    measured = drawings._gain_networks(gelu, 1.0, gain, 20, 64)
    samples = measured[0] / measured[0][:, :1], measured[1]
    lines = figure.axes[0].lines
    for points, line, x, theory in zip(lines[::2], lines[1::2], samples, (q, gradient), strict=True):
        check_line(points, np.median(x, axis=0), np.arange(1, 21))
        check_line(line, theory, np.arange(1, 21))
    slope = expected(lambda z: gelu(z) * gelu.derivative(z) * z) * gain**2
    medians = two(median_of(np.log10(samples[0][:, -1]))) + two(median_of(np.log10(samples[1][:, 0])))
    check_numbers(sentence, "20", f"{slope:.2f}", f"{math.log10(gradient[0]):.2f}", *medians)
    assert "a hilltop" in sentence


DRAWINGS = {
    check_norm: lambda: drawings.norm_figure("batch norm", batch=12, depth=15),
    check_branches: lambda: drawings.norm_figure("batch norm in branches", batch=20, depth=25),
    check_stream: lambda: drawings.stream_figure(scale=0.5, blocks=12, norm="no norm", width=64),
    check_pruning: lambda: drawings.pruning_figure("the smallest", 0.2),
    check_gain: lambda: drawings.gain_figure("GELU", drawings.BEHIND, depth=20, width=64),
}


@pytest.mark.parametrize("check", DRAWINGS, ids=lambda f: f.__name__)
def test_lines_and_sentence_are_what_they_say(check):
    check_drawing(check, *DRAWINGS[check]())


def layer_by_hand(name, z, W):
    """Return the next pre-activations (networks, units, images), from means and variances."""

    def standard(x, dim):
        return (x - x.mean(dim, keepdim=True)) / x.var(dim, correction=0, keepdim=True).sqrt()

    on = torch.clamp(z, min=0)
    return {
        "batch norm": lambda: W @ torch.clamp(standard(z, 2), min=0),
        "batch norm in branches": lambda: z + 2**0.5 * W @ torch.clamp(standard(z, 2), min=0),
        "layer norm after ReLU": lambda: W @ standard(on, 1),
        "layer norm before ReLU": lambda: W @ torch.clamp(standard(z, 1), min=0),
        "none, He's weights": lambda: 2**0.5 * W @ on,
    }[name]()


@pytest.mark.parametrize("name", drawings.NORMS)
def test_each_layer_is_the_one_that_its_name_says(name):
    generator = torch.Generator().manual_seed(1)
    z, W = (torch.randn(2, 6, n, generator=generator, dtype=torch.float64) for n in (5, 6))
    torch.testing.assert_close(drawings.NORMS[name](z, W), layer_by_hand(name, z, W))


@pytest.mark.parametrize("name", drawings.NORMS)
def test_the_predicted_growth_is_that_of_wide_networks(name):
    # The error of order 1/n that width 64 leaves is about a hundredth per layer.
    measured = drawings._norm_gradients(name, 16, 12)
    predicted = np.log(drawings._norm_factors(name, 16, 12)).sum() / 2
    log = mean_of(np.log(measured[:, 0]))
    assert abs(log.value - predicted) < 4 * log.standard_error + 0.12
    assert measured.shape == (drawings.NORM_NETWORKS, 13)


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


@pytest.mark.parametrize("normalization", drawings.STREAMS)
def test_streams_without_matrices_have_the_law_of_those_with(normalization):
    moments, shares = drawings._streams(0.6, 5, normalization, 4)
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
    moments, _ = drawings._streams(0.3, 8, normalization, 64)
    theory, share = drawings._predicted_streams(0.3, 8, normalization, 64)
    assert theory[-1] == pytest.approx(grown)
    assert share[-1] == pytest.approx(1 / grown + (1 - 1 / grown) / 64)
    compare(("second moment", grown, mean_of(moments[:, -1])))
    assert share[-1] == pytest.approx(drawings._streams(0.3, 8, normalization, 64)[1][:, -1].mean(), rel=0.03)


def test_post_norm_keeps_the_size_and_forgets():
    theory, share = drawings._predicted_streams(1.0, 40, "post-norm", 64)
    assert (theory == 1).all()
    assert share[1] == pytest.approx(1 / 2 + 1 / 2 / 63)
    assert share[-1] == pytest.approx(1 / 63)
    assert "sets its second moment to 1" in drawings.stream_figure(1.0, 20, "post-norm", 64)[1]


@pytest.mark.parametrize(
    ("scale", "normalization", "verdict"),
    [
        (0.05, "no norm", ": both."),
        (1.0, "no norm", ": neither."),
        (1.0, "post-norm", ": the stream only."),
    ],
)
def test_the_stream_is_judged_by_its_prediction(scale, normalization, verdict):
    assert verdict in drawings.stream_figure(scale, 48, normalization, 512)[1]


@pytest.mark.parametrize("kept", [0.3, 0.07])
def test_random_pruning_keeps_the_share_and_the_kurtosis_is_three_over_it(kept):
    cut, second, kurtosis = drawings._pruning_law("at random", kept)
    assert (cut, second) == (0.0, kept)
    assert kurtosis == pytest.approx(3 / kept)
    measured = drawings._pruned_signals("at random", kept)
    compare(("growth in three layers", kept**3, mean_of(measured[:, 3] / measured[:, 0])))


@pytest.mark.parametrize("removed", drawings.PRUNINGS)
def test_nothing_removed_is_a_he_network(removed):
    cut, second, kurtosis = drawings._pruning_law(removed, 1.0)
    assert (cut, second, kurtosis) == pytest.approx((0, 1, 3))
    steps = np.diff(drawings._pruning_spread(3.0))
    np.testing.assert_allclose(steps, math.log(1 + 5 / 128))


def test_rescaling_divides_by_what_is_left():
    plain, repaired = (
        drawings.pruning_figure("at random", 0.25, others)[0].axes[0].lines[0].get_ydata()
        for others in ("as they are", "rescaled")
    )
    np.testing.assert_allclose(plain * 4.0 ** np.arange(11), repaired)


def test_the_noise_has_its_pole_at_six_links():
    for links, passed in ((5.5, True), (6.5, False)):
        _, _, kurtosis = drawings._pruning_law("at random", links / 128)
        assert (drawings._pruning_spread(kurtosis) is None) == passed
    assert "has passed its pole" in drawings.pruning_figure("at random", 0.03, "rescaled")[1]


def real_gradients(phi, gain, depth, width, networks):
    """Return ln of the last q, and of the first gradient over the last, of plain networks with matrices."""
    generator = torch.Generator().manual_seed(3)
    shape = (depth - 1, networks, width, width)
    matrices = gain / math.sqrt(width) * torch.randn(*shape, generator=generator, dtype=torch.float64)
    first, error = gain * torch.randn(2, networks, 1, width, generator=generator, dtype=torch.float64)
    z = first.requires_grad_()
    for W in matrices:
        z = phi(z) @ W
    (gradient,) = torch.autograd.grad(z, first, error)
    growth = gradient.square().mean(dim=2) / error.square().mean(dim=2)
    return z.detach().square().mean(dim=2).log().numpy().ravel(), growth.log().numpy().ravel()


def test_gradients_without_matrices_have_the_law_of_those_with():
    q, gradient = drawings._gain_networks(tanh, 1.5, 1.5, 6, 32)
    fast = np.log(q[:, -1]), np.log(gradient[:, 0])
    for few, many in zip(fast, real_gradients(tanh, 1.5, 6, 32, 2000), strict=True):
        for power in (1, 2):
            assert abs(z_score(few**power, many**power)) < 4


def test_what_is_known_of_a_matrix_goes_into_the_gradient():
    # One unit: W is known altogether, z2 = w h, and the gradient is phi'(z1) w g, nothing left to chance.
    z = drawings._gain_draws(1)[0, :2, :, 0] * 1.5
    h = np.tanh(z[0])
    z[1] *= np.abs(h)
    _, gradient = drawings._gain_networks(tanh, 1.5, 1.5, 2, 1)
    # In float32 1 - h**2 has an absolute error of 1e-7, and it may be small.
    np.testing.assert_allclose(gradient[:, 0], ((1 - h**2) * z[1] / h) ** 2, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "root"), [("ReLU", 2**0.5), ("SELU", 1.0), ("GELU", 1.468), ("SiLU", 1.559), ("Mish", 1.451)]
)
def test_the_gain_in_front_solves_its_equation(name, root):
    first, gain = drawings._gains(name, drawings.IN_FRONT)
    assert first == gain == pytest.approx(root, abs=1e-3)
    assert expected(lambda z: drawings._activation(name)(z) ** 2, gain) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["tanh", "softsign", "sigmoid"])
def test_bounded_activations_have_no_gain_in_front(name):
    assert drawings._gains(name, drawings.IN_FRONT) is None
    assert f"No gain in front of {name}" in drawings.gain_figure(name, drawings.IN_FRONT)[1]


def test_the_gain_behind_spares_the_first_layer():
    assert drawings._gains("ReLU", drawings.BEHIND) == pytest.approx((1, 2**0.5))
    assert [drawings._gains("tanh", rule)[1] for rule in drawings.RULES[:4]] == pytest.approx(
        [3**-0.5, 1, 2**0.5, 5 / 3]
    )


@pytest.mark.parametrize(
    ("name", "words"), [("ReLU", "neutral"), ("SELU", "a valley"), ("SiLU", "a hilltop")]
)
def test_the_sentence_says_whether_a_fixed_point_holds(name, words):
    assert words in drawings.gain_figure(name, drawings.IN_FRONT, depth=5)[1]


def test_layers_are_kept_until_signal_or_gradient_leaves():
    even = np.ones(50)
    assert drawings._layers_kept(even, even) == 50
    assert drawings._layers_kept(2.0 ** -np.arange(50), even) == 5  # 2**-4 is kept, 2**-5 is not
    assert drawings._layers_kept(even, 2 * even) == 5
    assert drawings._layers_kept(3.0 ** np.arange(50), 2 * even) == 4
    figure, _ = drawings.gain_figure("ReLU", "Xavier: 1", depth=30)
    assert "predicted to keep 5 layers; 0 of 50 networks keep 30" in title(figure)
