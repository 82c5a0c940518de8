"""Spectra of sine layers and fits on them: against sums, draws and gradient descent."""

import math

import numpy as np
import pytest
import torch

from course_utils import frequency_laws
from course_utils.comparison import compare, mean_of, refute

TURNS = np.fft.fftfreq(512, 1 / 512)


@pytest.mark.parametrize(("law", "rest"), [("normal", 1 / 12), ("uniform", 0.0)])
def test_shares_are_those_of_rounded_numbers(law, rest):
    shares = frequency_laws.frequency_shares(4.0, law, 512)
    assert shares.sum() == pytest.approx(1)
    assert np.allclose(shares[1:], shares[:0:-1])
    draw = torch.Generator().manual_seed(2)
    b = torch.randn(400_000, generator=draw, dtype=torch.float64)
    if law == "uniform":
        b = (2 * torch.rand(400_000, generator=draw, dtype=torch.float64) - 1) * math.sqrt(3)
    b = (4 * b).round().abs().numpy()
    rows = [(f"{k} turns", 2 * shares[k], mean_of(b == k)) for k in (1, 4, 7)]
    compare(*rows)
    refute(("1 turn", shares[1], mean_of(b == 1)))
    if rest:
        assert (shares * TURNS**2).sum() == pytest.approx(16 + rest)  # Sheppard's correction


def poisson_sums(spectrum, q):
    """Return P(sum of J frequencies = k, J odd), J a Poisson number of mean q, by convolutions."""
    one, sums, found = spectrum / spectrum.sum(), np.eye(1, 512)[0], np.zeros(512)
    for j in range(60):
        if j % 2:
            found += math.exp(-q) * q**j / math.factorial(j) * sums
        sums = np.array([(sums * np.roll(one[::-1], k + 1)).sum() for k in range(512)])
    return found


@pytest.mark.parametrize("c", [2.0, 8.0])
def test_a_layers_frequencies_are_sums_of_oddly_many(c):
    spectrum = 0.5 * frequency_laws.frequency_shares(5.0, "uniform", 512)
    law = frequency_laws.sine_layer(spectrum, c)
    np.testing.assert_allclose(law, poisson_sums(spectrum, c / 2), atol=1e-12)
    assert law.sum() == pytest.approx((1 - math.exp(-c)) / 2)
    mean_square = [(power * TURNS**2).sum() / power.sum() for power in (spectrum, law)]
    if c == 2:  # else some is folded back
        assert mean_square[1] / mean_square[0] == pytest.approx(1 / math.tanh(1))


def drawn_layer(c, n=200):
    """Return the power above 8 turns behind a second sine layer, of one network."""
    draw = torch.Generator().manual_seed(int(c))
    powers = []
    for _ in range(60):
        w = (5 * math.sqrt(3) * (2 * torch.rand(n, generator=draw, dtype=torch.float64) - 1)).round()
        phase = 2 * math.pi * torch.rand(n, generator=draw, dtype=torch.float64)
        x = torch.arange(512, dtype=torch.float64)[:, None] * 2 * math.pi / 512
        W = torch.randn(n, n, generator=draw, dtype=torch.float64) * math.sqrt(c / n)
        power = torch.fft.fft(((x * w + phase).sin() @ W).sin(), dim=0).abs().square() / 512**2
        powers.append(power.mean(dim=1)[np.abs(TURNS) > 8].sum().item())
    return powers


@pytest.mark.parametrize("c", [2.0, 8.0])
def test_a_wide_layer_has_the_spectrum_of_the_law(c):
    spectrum = 0.5 * frequency_laws.frequency_shares(5.0, "uniform", 512)
    high, linear = (frequency_laws.sine_layer(spectrum, x)[np.abs(TURNS) > 8].sum() for x in (c, c / 2))
    measured = mean_of(drawn_layer(c))
    compare(("power above 8 turns", high, measured))
    refute(("of half the variance", linear, measured))


def test_a_fit_is_that_of_gradient_descent():
    shares, rate, steps = frequency_laws.frequency_shares(6.0, "normal", 128), 0.5, 40
    x, k = np.arange(128) / 128, np.arange(128)
    kernel = np.fft.fft(shares).real[(k[:, None] - k) % 128][:, ::8]
    wave, a = np.cos(2 * np.pi * 5 * x), np.zeros(16)
    for _ in range(steps):
        a -= rate / 16 * (kernel[::8] @ a - wave[::8])
    learned, spread = frequency_laws.fit_law(shares, 5, 16, rate, steps)
    np.testing.assert_allclose(kernel @ a, np.fft.ifft(spread).real * 128, atol=1e-12)
    np.testing.assert_allclose(kernel[::8] @ a, learned * wave[::8], atol=1e-12)
    assert 0.3 < learned < 0.95
    assert np.abs(kernel @ a - learned * wave).max() > 0.1  # between the samples it is another wave


def test_what_has_no_share_is_not_learned():
    learned, spread = frequency_laws.fit_law(np.zeros(64), 5, 16, 0.5, 10)
    assert learned == 0
    assert (spread == 0).all()


def test_the_largest_std_that_fits_the_points_is_taken():
    assert frequency_laws.frequency_shares(32, "normal", 512).sum() == pytest.approx(1)


@pytest.mark.parametrize("std", [-1, 0, 32.01, math.nan])
def test_a_std_that_does_not_fit_the_points_is_refused(std):
    with pytest.raises(ValueError, match="points / 16"):
        frequency_laws.frequency_shares(std, "normal", 512)


@pytest.mark.parametrize(("wave", "samples"), [(0, 16), (8, 16), (3, 24)])
def test_a_wave_that_the_samples_cannot_tell_is_refused(wave, samples):
    with pytest.raises(ValueError, match="0 < wave < samples / 2"):
        frequency_laws.fit_law(np.ones(64) / 64, wave, samples, 0.5, 10)
