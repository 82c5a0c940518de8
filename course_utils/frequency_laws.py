"""Theory of frequencies: the waves of wide sine layers before training, and what a linear model learns.

A spectrum has a power for each whole number of cycles on a circle, in the order of `numpy.fft.fftfreq`,
(points,): what lies beyond half the points is folded back, as by samples. Its sum is the second moment.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from course_utils.checks import check_arguments, check_name

LAWS = ("normal", "uniform")  # of the frequencies before they are rounded


def frequency_shares(std: float, law: str, points: int) -> NDArray:
    """Return P(b, rounded, is k) for frequencies b of mean 0, of this std and law: a spectrum (points,).

    Raises: ValueError for an unknown law, and unless 0 < std <= points / 16, for the tails are cut off.
    """
    check_arguments(count=points)
    if not 0 < std <= points / 16:
        raise ValueError(f"expected 0 < std <= points / 16; got std={std}, points={points}")
    edges = (np.arange(points + 1) - points // 2 - 0.5) / std
    if check_name("law", law, LAWS) == "normal":
        below = torch.special.ndtr(torch.from_numpy(edges)).numpy()
    else:
        below = np.clip(0.5 + edges / math.sqrt(12), 0, 1)
    return np.fft.ifftshift(np.diff(below))


def sine_layer(spectrum: ArrayLike, c: float) -> NDArray:
    """Return the spectrum behind a wide sine layer, weights of variance c / n, inputs with this spectrum.

    Of units at two points the covariance kappa becomes exp(-q) sinh(c kappa), with q = c m: a frequency is
    the sum of J earlier ones, J a Poisson number of mean q, of which the odd ones count.
    """
    check_arguments(c=c)
    kappa = np.fft.fft(spectrum).real
    q = c * kappa[0]
    return np.fft.ifft((np.exp(c * kappa - q) - np.exp(-c * kappa - q)) / 2).real


def fit_law(shares: ArrayLike, wave: int, samples: int, rate: float, steps: int) -> tuple[float, NDArray]:
    """Return which share of a wave is learned from equidistant samples, at them and at each frequency.

    Gradient descent from 0 on the mean of half the squared errors, of a linear model on features whose kernel
    has the spectrum `shares`: with P the sum of the shares at wave + j samples, 1 - (1 - rate P)**steps is
    learned at the samples, and spread over these frequencies in proportion, (points,).
    Raises: ValueError unless 0 < wave < samples / 2 and samples divide the points.
    """
    check_arguments(rate=rate, steps=steps, count=samples)
    shares = np.asarray(shares, dtype=float)
    if not 0 < wave < samples / 2 or len(shares) % samples:
        raise ValueError(f"expected 0 < wave < samples / 2, samples of {len(shares)}; got {wave}, {samples}")
    alike = np.zeros(len(shares))
    alike[wave::samples] = shares[wave::samples]
    total = alike.sum()
    learned = 1 - (1 - rate * total) ** steps
    return learned, learned * alike / (total or 1)
