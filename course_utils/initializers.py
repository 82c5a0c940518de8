"""Weight initializers written to be read, and a drop-in for `torch.nn.init`.

Every function fills its tensor in place, records no gradient, and returns the very tensor it was given.
Weights are laid out `(out, in, *kernel)`, as in `nn.Linear` and `nn.Conv*`; a matrix meant for `x @ W` is the
transpose of that, so pass `W.T`. A call that raises has written and drawn nothing.

Raises, besides what a docstring lists: TypeError for what is no tensor; NotImplementedError for integers or
complex numbers that should be random; ValueError for a wrong number of dimensions, and for a mean, std or
gain that is infinite, NaN or too large for draws of the tensor's dtype, a std or gain also if it is negative.

Read `variance_scaling_` first: LeCun, Xavier (Glorot) and Kaiming (He) are three ways to call it.
"""

import math
import warnings
from collections.abc import Sequence
from functools import partial

import torch
from torch import Generator, Tensor

from course_utils.checks import check_name

Rng = Generator | None  # None stands for torch's global random state

_GAINS = {f"conv{kind}{n}d": 1.0 for kind in ("", "_transpose") for n in (1, 2, 3)}
_GAINS |= {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2.0), "selu": 3 / 4}

# The std of N(0, 1) after truncation to [-2, 2]: 0.8796
_STD_CUT_AT_TWO = math.sqrt(1 - 4 * math.exp(-2) / (math.sqrt(2 * math.pi) * math.erf(math.sqrt(2))))


def _check_shape(tensor: Tensor, least: int, most: float = math.inf) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"expected a torch.Tensor; got {type(tensor).__name__}")
    if not least <= tensor.ndim <= most:
        wanted = f"{least}" + ("" if most == least else " or more" if most == math.inf else f" to {most}")
        raise ValueError(f"expected a tensor with {wanted} dimensions; got shape {tuple(tensor.shape)}")


def _check(
    tensor: Tensor, least: int = 0, most: float = math.inf, *, mean: float = 0.0, **scale: float
) -> None:
    """Refuse what cannot be filled, before anything is written; `scale` is one number, a std or a gain."""
    _check_shape(tensor, least, most)
    if not tensor.is_floating_point():
        raise NotImplementedError(f"expected a tensor of floating-point numbers; got {tensor.dtype}")
    for name, value in scale.items():  # no draw is 9 std away from its mean
        if not (value >= 0 and abs(mean) + 9 * value <= torch.finfo(tensor.dtype).max):
            wanted = f"a finite mean and a finite {name} >= 0, so that draws fit into {tensor.dtype}"
            raise ValueError(f"expected {wanted}; got mean={mean}, {name}={value}")


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor on the standard deviation that torch recommends before a nonlinearity.

    nonlinearity: its name in `torch.nn.functional`; names of linear and convolutional layers have gain 1.
    param: negative slope of "leaky_relu" (0.01 if None), ignored by all others.
    Trap: torch, and so this function, gives SELU 3/4; self-normalization needs 1, so pass "linear" for that.
    Raises: ValueError for an unknown nonlinearity.
    Source: He et al. 2015 (ReLU and leaky ReLU); the gains of tanh and SELU are empirical.
    """
    slope = 0.01 if param is None else param
    gains = _GAINS | {"leaky_relu": math.sqrt(2.0 / (1 + slope**2))}
    return gains[check_name("nonlinearity", nonlinearity, gains)]


def calculate_fans(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out): how many inputs feed each output, and how many outputs each input feeds.

    tensor: `(out, in, *kernel)`, with fan_in = in * prod(kernel) and fan_out = out * prod(kernel).
    Trap: a matrix for `x @ W` and the weight of a ConvTranspose, `(in, out / groups, *kernel)`, are laid out
    the other way round: the fans come out swapped (and with groups, one of them too small).
    """
    _check_shape(tensor, least=2)
    receptive_field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive_field, tensor.shape[0] * receptive_field


@torch.no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with `val`."""
    _check_shape(tensor, 0)
    return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0.0)


@torch.no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """Fill the `(out, in)` tensor with the identity, so that a linear layer copies what inputs it can."""
    _check_shape(tensor, 2, 2)
    tensor.zero_().diagonal().fill_(1)
    return tensor


@torch.no_grad()
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill with a unit impulse per channel, so that a padded convolution copies as many channels as it can.

    tensor: `(out, in / groups, *kernel)` with 1 to 3 kernel dimensions; each group is an identity of its own.
    Trap: the centre of an even kernel is k // 2, as in torch; JAX and TensorFlow take (k - 1) // 2.
    Raises: ValueError unless `groups` divides the first dimension.
    """
    _check_shape(tensor, 3, 5)
    if groups < 1 or len(tensor) % groups:
        raise ValueError(f"groups must be positive and divide dimension 0 (size {len(tensor)}); got {groups}")
    if tensor.numel():
        centre = tensor[(..., *(size // 2 for size in tensor.shape[2:]))]
        blocks = centre.unflatten(0, (groups, -1))  # a view (groups, out / groups, in / groups)
        tensor.zero_()
        blocks.diagonal(dim1=1, dim2=2).fill_(1)
    return tensor


@torch.no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from U(a, b), whose variance is (b - a)**2 / 12.

    Raises: RuntimeError if a > b, or for a bound that is nan or too large for the tensor's dtype.
    """
    _check(tensor)
    return tensor.uniform_(a, b, generator=generator)


@torch.no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from N(mean, std**2)."""
    _check(tensor, mean=mean, std=std)
    return tensor.normal_(mean, std, generator=generator)


@torch.no_grad()
def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2, b: float = 2, generator: Rng = None
) -> Tensor:
    """Fill with draws from N(mean, std**2) conditioned on lying in [a, b].

    mean, std: those of the law BEFORE truncation; std = 0 gives the point of [a, b] nearest to the mean.
    a, b: rounded to the tensor's dtype; may be infinite, or in a tail, but from 37 std off the mean on all
    draws are the nearer bound.
    Trap: they are absolute, not multiples of std: `trunc_normal_(w, std=0.02)` cuts at 100 standard
    deviations, which is not at all. For two of them pass a=-2 * std, b=2 * std, or use `variance_scaling_`.
    Raises: ValueError unless a <= b, with a number of the tensor's dtype between them.
    """
    _check(tensor, mean=mean, std=std)
    largest = torch.finfo(tensor.dtype).max
    if not (a <= b and a <= largest and b >= -largest):
        raise ValueError(f"expected bounds a <= b, within {tensor.dtype}; got a={a}, b={b}")
    if std == 0:
        return constant_(tensor, min(max(mean, a), b))
    # Quantiles of the lower tail lose no digits far out, those of the upper one do.
    side = -1 if a + b > 2 * mean else 1
    ends = tensor.new_tensor([(a - mean) / std, (b - mean) / std], dtype=torch.float64)
    low, high = (torch.erfc(-side * ends / math.sqrt(2)) / 2).sort().values  # torch's ndtr is 0 below -9
    share = tensor.new_empty(tensor.shape, dtype=torch.float64).uniform_(generator=generator)
    quantiles = torch.special.ndtri(high + share * (low - high))
    return tensor.copy_((mean + side * std * quantiles).clamp_(a, b))


def variance_scaling_(
    tensor: Tensor, gain: float = 1, mode: str = "fan_in", distribution: str = "normal", generator: Rng = None
) -> Tensor:
    """Fill with draws of mean 0 and variance gain**2 / fan.

    tensor: `(out, in, *kernel)`; see `calculate_fans` for layouts that swap the fans. Empty: a UserWarning.
    gain: multiplies the standard deviation (the `scale` of JAX and Keras is its square).
    mode: "fan_in" keeps variances forward, "fan_out" backward; "fan_avg", their mean, is the compromise.
    distribution: "normal", "uniform", or "truncated_normal", cut at 2 standard deviations of a parent law
    that is wide enough to make the variance right AFTER truncation, as in JAX and Keras.
    Raises: ValueError for an unknown mode or distribution.
    """
    _check(tensor, 2, gain=gain)
    fan_in, fan_out = calculate_fans(tensor)
    if tensor.numel() == 0:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)  # 3: who called xavier_*
        return tensor
    # fan_avg is not gain / sqrt(mean fan), so as to agree with torch to the last bit.
    stds = {"fan_in": gain / math.sqrt(fan_in), "fan_out": gain / math.sqrt(fan_out)}
    stds["fan_avg"] = gain * math.sqrt(2.0 / (fan_in + fan_out))
    std = stds[check_name("mode", mode, stds)]
    bound, parent = math.sqrt(3.0) * std, std / _STD_CUT_AT_TWO  # the variance of U(-b, b) is b**2 / 3
    fills = {
        "normal": partial(normal_, std=std),
        "uniform": partial(uniform_, a=-bound, b=bound),
        "truncated_normal": partial(trunc_normal_, std=parent, a=-2 * parent, b=2 * parent),
    }
    return fills[check_name("distribution", distribution, fills)](tensor, generator=generator)


def lecun_normal_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from N(0, gain**2 / fan_in), which keeps a linear layer's variance and normalizes SELU.

    Else as `variance_scaling_`. JAX and Keras truncate their `lecun_normal`. Source: LeCun et al. 1998,
    "Efficient BackProp".
    """
    return variance_scaling_(tensor, gain, "fan_in", "normal", generator)


def lecun_uniform_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from the uniform law of variance gain**2 / fan_in; else as `lecun_normal_`."""
    return variance_scaling_(tensor, gain, "fan_in", "uniform", generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from N(0, gain**2 * 2 / (fan_in + fan_out)); else as `variance_scaling_`.

    JAX and Keras truncate their `glorot_normal`. Source: Glorot and Bengio 2010, eq. 12 (uniform: 16).
    """
    return variance_scaling_(tensor, gain, "fan_avg", "normal", generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out)); else as `xavier_normal_`."""
    return variance_scaling_(tensor, gain, "fan_avg", "uniform", generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Rng = None,
) -> Tensor:
    """Fill with draws from N(0, gain**2 / fan), gain = calculate_gain(nonlinearity, a): 2 / fan_in for ReLU.

    a: negative slope, which only "leaky_relu" looks at; 0 makes that a ReLU. Raises: as `calculate_gain`.
    mode: "fan_in" or "fan_out"; it and tensor as in `variance_scaling_`. JAX and Keras truncate `he_normal`.
    Source: He et al. 2015.
    """
    return variance_scaling_(tensor, calculate_gain(nonlinearity, a), mode, "normal", generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Rng = None,
) -> Tensor:
    """Fill with draws from U(-bound, bound), where bound = calculate_gain(nonlinearity, a) * sqrt(3 / fan).

    a, mode, tensor, Raises, Source: as in `kaiming_normal_`.
    Trap: `nn.Linear` and `nn.Conv*` set a = sqrt(5): variance 1 / (3 * fan_in), neither He nor Xavier.
    """
    return variance_scaling_(tensor, calculate_gain(nonlinearity, a), mode, "uniform", generator)


@torch.no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Rng = None) -> Tensor:
    """Fill with `gain` times a (semi-)orthogonal matrix drawn uniformly (by Haar measure).

    tensor: flattened to a matrix `(out, in * prod(kernel))`, whose rows or columns, the fewer of them, become
    orthonormal; an entry has variance gain**2 / max(rows, columns).
    Trap: a convolution with such a kernel is not an isometry: flattened patches overlap.
    Source: Saxe et al. 2014 (arXiv 1312.6120); Mezzadri 2007 (math-ph/0609050) for the signs.
    """
    _check(tensor, 2, gain=gain)
    if tensor.numel() == 0:
        return tensor
    dtype = torch.promote_types(tensor.dtype, torch.float32)  # half precision has no QR
    gaussian = tensor.new_empty(tensor.shape, dtype=dtype).flatten(1).normal_(generator=generator)
    wide = gaussian.shape[0] < gaussian.shape[1]
    q, r = torch.linalg.qr(gaussian.T if wide else gaussian)
    # Only the QR whose R has a positive diagonal makes Q uniform; LAPACK chooses the signs by other rules.
    q *= 1 - 2 * (r.diagonal() < 0).to(q.dtype)
    q = q.T if wide else q
    return tensor.copy_(q.mul_(gain).view(tensor.shape))


@torch.no_grad()
def delta_orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill a kernel's centre with `gain` times a (semi-)orthogonal matrix of Haar measure, the rest with 0.

    tensor: `(out, in, *kernel)` with 1 to 3 kernel dimensions and out >= in. A convolution with it, of stride
    1 and padded to keep the size, multiplies each pixel's norm by `gain`, whatever it is padded with.
    The centre of an even kernel is (k - 1) // 2, as in JAX and TensorFlow: with it padding="same" loses no
    pixel, while torch's `dirac_` takes k // 2. Trap: with groups, fill the rows of each group on their own.
    Raises: ValueError unless out >= in.
    Source: Xiao et al. 2018 (arXiv 1806.05393), algorithm 2.
    """
    _check(tensor, 3, 5, gain=gain)
    out, channels, *kernel = tensor.shape
    if out < channels:
        hint = "to keep gradients' norms only, call orthogonal_ on the centre of a kernel of zeros"
        raise ValueError(f"expected (out, in, *kernel) with out >= in; got {tuple(tensor.shape)}; {hint}")
    if tensor.numel() == 0:
        return tensor
    q = orthogonal_(tensor.new_empty(out, channels), gain, generator)
    tensor.zero_()[(..., *((size - 1) // 2 for size in kernel))] = q
    return tensor


@torch.no_grad()
def looks_linear_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with [W', -W'], so that a layer fed by a concatenated ReLU starts as the linear map W'.

    tensor: `(out, 2 * d, *kernel)`: the inputs are (relu(y), relu(-y)) for some y of d channels, whence
    W' relu(y) - W' relu(-y) = W' y. W' is `gain` times orthogonal, for a kernel delta-orthogonal, and keeps
    norms if out >= d. Trap: it takes a CReLU before the layer. For plain ReLUs, d of the units must mirror
    the other d: [[W', -W'], [-W', W']].
    Raises: ValueError unless the number of input channels is even, and for a kernel out >= d.
    Source: Balduzzi et al. 2017 (arXiv 1702.08591); Shang et al. 2016 for the CReLU.
    """
    _check(tensor, 2, 5, gain=gain)
    out, channels, *kernel = tensor.shape
    if channels % 2 or (kernel and 2 * out < channels):
        wanted = "a shape (out, 2 * d), or (out, 2 * d, *kernel) with out >= d"
        raise ValueError(f"expected {wanted}; got {tuple(tensor.shape)}")
    fill_ = delta_orthogonal_ if kernel else orthogonal_
    half = fill_(tensor.new_empty(out, channels // 2, *kernel), gain, generator)
    return tensor.copy_(torch.cat([half, -half], dim=1))


@torch.no_grad()
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Rng = None) -> Tensor:
    """Fill with draws from N(0, std**2), then set ceil(sparsity * rows) entries of each column to 0.

    tensor: `(out, in)`; the rows of the zeros are drawn afresh for each column, one input's weights.
    Raises: ValueError unless 0 <= sparsity <= 1.
    Source: Martens 2010, "Deep learning via Hessian-free optimization".
    """
    _check(tensor, 2, 2, std=std)
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be between 0 and 1; got {sparsity}")
    tensor.normal_(0.0, std, generator=generator)
    # The largest of random keys stand at uniformly random places.
    keys = torch.rand(tensor.T.shape, generator=generator, device=tensor.device)
    places = keys.topk(math.ceil(sparsity * len(tensor)), dim=1, sorted=False).indices
    tensor.T.scatter_(1, places, 0.0)
    return tensor


@torch.no_grad()
def output_prior_bias_(tensor: Tensor, frequencies: Tensor | Sequence[float]) -> Tensor:
    """Fill the bias of a softmax layer with log class frequencies, so that the bias alone predicts them.

    tensor: `(..., classes)`. frequencies: `(classes,)`, counts or shares; they are divided by their sum. The
    loss of logits that are this bias is their entropy, not log(classes). Trap: a single sigmoid output needs
    log(p / (1 - p)) instead, the difference of the two entries.
    Raises: ValueError unless there is one frequency for each of 2 or more classes, all positive and finite:
    log(0) forbids a class for ever, so give one that has not been seen a small count.
    Source: Lin et al. 2017, "Focal loss for dense object detection", Section 3.3.
    """
    _check(tensor, 1)
    shares = torch.as_tensor(frequencies, dtype=torch.float64)
    valid = shares.shape == tensor.shape[-1:] and len(shares) > 1 and ((shares > 0) & shares.isfinite()).all()
    if not valid:
        wanted = f"{tensor.shape[-1]} frequencies, at least 2, all positive and finite"
        raise ValueError(f"expected {wanted}; got {shares.tolist()}")
    return tensor.copy_(shares.log().log_softmax(dim=0).expand_as(tensor))  # as a sum, they might overflow
