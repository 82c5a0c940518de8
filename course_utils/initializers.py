"""Weight initializers written to be read, and a drop-in for `torch.nn.init`.

Every function fills its tensor in place, records no gradient, and returns the very tensor it was given.
Weights are laid out `(out, in, *kernel)`, as in `nn.Linear` and `nn.Conv*`; a matrix meant for `x @ W` is the
transpose of that, so pass `W.T`. A call that raises has written nothing. Besides the errors that a docstring
lists, what is no tensor gets a TypeError, and integers that should be random a NotImplementedError.

Read `variance_scaling_` first: LeCun, Xavier (Glorot) and Kaiming (He) are three ways to call it.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor

Rng = Generator | None  # None stands for torch's global random state
Proposals = tuple[Tensor, Tensor]  # draws, and which of them to reject

_CONVOLUTIONS = [f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)]
_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2.0), "selu": 3 / 4}
_GAINS |= dict.fromkeys(_CONVOLUTIONS, 1.0)

# The standard deviation of N(0, 1) after truncation to [-2, 2]: 0.8796.
_STD_CUT_AT_TWO = math.sqrt(1 - 4 * math.exp(-2) / (math.sqrt(2 * math.pi) * math.erf(math.sqrt(2))))


def _check_tensor(tensor: Tensor, least: int = 0, most: float = math.inf) -> None:
    """Refuse what is not a tensor (TypeError) or has the wrong number of dimensions (ValueError)."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"expected a torch.Tensor; got {type(tensor).__name__}")
    if not least <= tensor.ndim <= most:
        wanted = f"{least}" + ("" if most == least else " or more" if most == math.inf else f" to {most}")
        raise ValueError(f"expected a tensor with {wanted} dimensions; got shape {tuple(tensor.shape)}")


def _check_floating(tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise NotImplementedError(f"expected a tensor of floating-point numbers; got {tensor.dtype}")


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> str:
    """Return `value` in lower case if it is valid; raise a ValueError that lists the valid ones otherwise."""
    if str(value).lower() not in valid:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, valid))}; got {value!r}")
    return value.lower()


def _scratch(tensor: Tensor, *shape: int) -> Tensor:
    """Return uninitialized memory to compute in: float32 for half precision, else the tensor's own dtype."""
    dtype = tensor.dtype if tensor.dtype == torch.float64 else torch.float32
    return torch.empty(shape, dtype=dtype, device=tensor.device)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor on the standard deviation that torch recommends before a nonlinearity.

    nonlinearity: its name in `torch.nn.functional`; names of linear and convolutional layers have gain 1.
    param: negative slope of "leaky_relu" (0.01 if None), ignored by all others.
    Trap: torch, and so this function, gives SELU 3/4; self-normalization needs 1, so pass "linear" for that.
    Raises: ValueError for an unknown nonlinearity or a slope that is not a number.
    Source: He et al. 2015, eq. 10 and 15 (ReLU and leaky ReLU); the gains of tanh and SELU are empirical.
    """
    names = [*_GAINS, "leaky_relu"]
    if nonlinearity not in names:
        raise ValueError(f"nonlinearity must be one of {', '.join(map(repr, names))}; got {nonlinearity!r}")
    if nonlinearity in _GAINS:
        return _GAINS[nonlinearity]
    slope = 0.01 if param is None else param
    if isinstance(slope, bool) or not isinstance(slope, int | float):
        raise ValueError(f"the negative slope must be an int or a float; got {slope!r}")
    return math.sqrt(2.0 / (1 + slope**2))


def calculate_fans(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out): how many inputs feed each output, and how many outputs each input feeds.

    tensor: `(out, in, *kernel)`, with fan_in = in * prod(kernel) and fan_out = out * prod(kernel).
    Trap: a matrix for `x @ W` and the weight of a ConvTranspose, `(in, out / groups, *kernel)`, are laid out
    the other way round, so that the fans come out swapped (and with groups, one of them too small).
    Raises: ValueError for fewer than 2 dimensions.
    """
    _check_tensor(tensor, least=2)
    receptive_field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive_field, tensor.shape[0] * receptive_field


@torch.no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with `val`."""
    _check_tensor(tensor)
    return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0.0)


@torch.no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """Fill the `(out, in)` tensor with the identity, so that a linear layer copies as many inputs as it can.

    Raises: ValueError unless it has 2 dimensions.
    """
    _check_tensor(tensor, least=2, most=2)
    tensor.zero_().diagonal().fill_(1)
    return tensor


@torch.no_grad()
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill with a unit impulse per channel, so that a padded convolution copies as many channels as it can.

    tensor: `(out, in / groups, *kernel)` with 1 to 3 kernel dimensions; each group is an identity of its own.
    Trap: the centre of an even kernel is k // 2, as in torch; JAX and TensorFlow take (k - 1) // 2.
    Raises: ValueError unless it has 3 to 5 dimensions and `groups` divides the first.
    """
    _check_tensor(tensor, least=3, most=5)
    out = tensor.shape[0]
    if groups < 1 or out % groups:
        raise ValueError(f"groups must be positive and divide dimension 0 (size {out}); got {groups}")
    if tensor.numel():
        centre = tensor[(..., *(size // 2 for size in tensor.shape[2:]))]
        blocks = centre.unflatten(0, (groups, out // groups))  # a view (groups, out / groups, in / groups)
        tensor.zero_()
        blocks.diagonal(dim1=1, dim2=2).fill_(1)
    return tensor


@torch.no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from U(a, b), whose variance is (b - a)**2 / 12.

    Raises: RuntimeError if a > b.
    """
    _check_tensor(tensor)
    return tensor.uniform_(a, b, generator=generator)


@torch.no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from N(mean, std**2).

    Raises: RuntimeError if the standard deviation is negative or NaN.
    """
    _check_tensor(tensor)
    return tensor.normal_(mean, std, generator=generator)


@torch.no_grad()
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Rng = None,
) -> Tensor:
    """Fill with draws from N(mean, std**2) conditioned on lying in [a, b].

    mean, std: those of the law BEFORE truncation; std = 0 gives the point of [a, b] nearest to the mean.
    a, b: may be infinite or far out in a tail; the law is exact always, in half precision up to rounding.
    Trap: a and b are absolute, not multiples of std: `trunc_normal_(w, std=0.02)` cuts at 100 standard
    deviations, which is not at all. For two of them pass a=-2 * std, b=2 * std, or use `variance_scaling_`.
    Raises: RuntimeError if a > b; ValueError for a NaN, a negative or infinite std, an infinite mean.
    """
    _check_tensor(tensor)
    _check_floating(tensor)
    _check_truncation(mean, std, a, b)
    if std == 0 or a == b:
        return constant_(tensor, min(max(mean, a), b))
    if tensor.numel() == 0 or tensor.is_meta:
        return tensor
    low, high = (a - mean) / std, (b - mean) / std
    if math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)) > 0.6:  # at least 3 draws in 10 are kept
        origin, step = mean, std
        propose = partial(_propose_normal, low, high, generator)
    else:  # measure from the bound nearer to the mean, in the direction that leads into the interval
        origin, step = (b, -std) if b < mean else (a, std)
        propose = partial(_propose_tail, (origin - mean) / step, (b - a) / std, generator)
    draws = _redraw_rejected(propose, _scratch(tensor, tensor.numel())).mul_(step).add_(origin)
    draws.clamp_(*_representable_bounds(a, b, tensor.dtype))  # lest rounding step outside [a, b]
    return tensor.copy_(draws.view(tensor.shape))


def _check_truncation(mean: float, std: float, a: float, b: float) -> None:
    if not (math.isfinite(mean) and 0 <= std < math.inf):
        raise ValueError(f"expected a finite mean and a finite std >= 0; got mean={mean}, std={std}")
    if math.isnan(a) or math.isnan(b):
        raise ValueError(f"expected bounds that are numbers; got a={a}, b={b}")
    if a > b:
        raise RuntimeError(f"expected a <= b; got a={a}, b={b}")


def _propose_normal(low: float, high: float, generator: Rng, out: Tensor) -> Proposals:
    """Fill `out` with draws from N(0, 1), to be rejected outside [low, high]."""
    out.normal_(generator=generator)
    return out, (out < low) | (out > high)


def _propose_tail(start: float, width: float, generator: Rng, out: Tensor) -> Proposals:
    """Fill `out` with draws of x - start, for an x from N(0, 1) conditioned on [start, start + width].

    Proposals have density ~ exp(-rate * x), by inversion of its distribution function, and are kept with
    probability exp(-(x - rate)**2 / 2): for any rate, the product of the two is ~ exp(-x**2 / 2).
    Source: Robert 1995, "Simulation of truncated normal variables".
    """
    # Far out the best simple rate is the slope of x**2 / 2 at `start`; close to 0 a uniform law does as well.
    rate, gap = (start, 0.0) if start > 0.01 else (0.0, start)
    out.uniform_(generator=generator)
    if rate:
        out.mul_(math.expm1(-rate * width)).log1p_().div_(-rate)
    else:
        out.mul_(width)
    keep_probability = (out + gap).square_().div_(-2).exp_()  # gap = start - rate, exact even far out
    return out, torch.empty_like(out).uniform_(generator=generator) >= keep_probability


def _redraw_rejected(propose: Callable[[Tensor], Proposals], out: Tensor) -> Tensor:
    """Fill the vector `out` with accepted proposals, drawing again only those that are rejected."""
    values, rejected = propose(out)
    pending = rejected.nonzero().squeeze(1)
    while pending.numel():
        values[pending], rejected = propose(torch.empty_like(pending, dtype=values.dtype))
        pending = pending[rejected]
    return values


def _representable_bounds(a: float, b: float, dtype: torch.dtype) -> tuple[float, float]:
    """Return the least and the greatest number of `dtype` in [a, b]."""
    low, high = torch.tensor([a, b], dtype=torch.float64).to(dtype)
    low = low if low.item() >= a else low.nextafter(torch.full_like(low, math.inf))
    high = high if high.item() <= b else high.nextafter(torch.full_like(high, -math.inf))
    return low.item(), high.item()


def variance_scaling_(
    tensor: Tensor,
    gain: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    generator: Rng = None,
) -> Tensor:
    """Fill with draws of mean 0 and variance gain**2 / fan.

    tensor: `(out, in, *kernel)`; see `calculate_fans` for layouts that swap the fans. Empty: a UserWarning.
    gain: multiplies the standard deviation (the `scale` of JAX and Keras is its square).
    mode: "fan_in" keeps the signal's variance forward, "fan_out" the gradient's backward, "fan_avg", the mean
    of both, is the compromise.
    distribution: "normal", "uniform", or "truncated_normal", cut at 2 standard deviations of a parent law
    that is wide enough to make the variance right AFTER truncation, as in JAX and Keras.
    Raises: ValueError for fewer than 2 dimensions or an unknown mode or distribution; RuntimeError for a gain
    that is negative, infinite or NaN.
    """
    mode = _one_of("mode", mode, ("fan_in", "fan_out", "fan_avg"))
    distribution = _one_of("distribution", distribution, ("normal", "truncated_normal", "uniform"))
    fan_in, fan_out = calculate_fans(tensor)
    if not 0 <= gain < math.inf:
        raise RuntimeError(f"gain must be finite and >= 0; got {gain}")
    if tensor.numel() == 0:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)  # 3: who called xavier_*
        return tensor
    if mode == "fan_avg":  # not gain / sqrt(mean fan), so as to agree with torch to the last bit
        std = gain * math.sqrt(2.0 / (fan_in + fan_out))
    else:
        std = gain / math.sqrt(fan_in if mode == "fan_in" else fan_out)
    if distribution == "normal":
        return normal_(tensor, 0.0, std, generator)
    if distribution == "uniform":
        bound = math.sqrt(3.0) * std  # the variance of U(-bound, bound) is bound**2 / 3
        return uniform_(tensor, -bound, bound, generator)
    parent_std = std / _STD_CUT_AT_TWO
    return trunc_normal_(tensor, 0.0, parent_std, -2 * parent_std, 2 * parent_std, generator)


def lecun_normal_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from N(0, gain**2 / fan_in), which keeps a linear layer's variance and normalizes SELU.

    tensor, Raises: as in `variance_scaling_`. JAX and Keras truncate their `lecun_normal`.
    Source: LeCun, Bottou, Orr and Mueller 1998, "Efficient BackProp", Section 4.6.
    """
    return variance_scaling_(tensor, gain, "fan_in", "normal", generator)


def lecun_uniform_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from the uniform law of mean 0 and variance gain**2 / fan_in.

    tensor, Raises, Source: as in `lecun_normal_`.
    """
    return variance_scaling_(tensor, gain, "fan_in", "uniform", generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from N(0, gain**2 * 2 / (fan_in + fan_out)).

    tensor, Raises: as in `variance_scaling_`. JAX and Keras truncate their `glorot_normal`.
    Source: Glorot and Bengio 2010, eq. 12.
    """
    return variance_scaling_(tensor, gain, "fan_avg", "normal", generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with draws from U(-bound, bound), where bound = gain * sqrt(6 / (fan_in + fan_out)).

    tensor, Raises: as in `variance_scaling_`.
    Source: Glorot and Bengio 2010, eq. 16.
    """
    return variance_scaling_(tensor, gain, "fan_avg", "uniform", generator)


def _fan_mode(mode: str) -> str:
    """Refuse "fan_avg", which torch's kaiming_* do not know."""
    return _one_of("mode", mode, ("fan_in", "fan_out"))


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Rng = None,
) -> Tensor:
    """Fill with draws from N(0, gain**2 / fan), gain = calculate_gain(nonlinearity, a): 2 / fan_in for ReLU.

    a: negative slope, which only "leaky_relu" looks at; 0 makes that a ReLU.
    mode: "fan_in" or "fan_out"; it and tensor as in `variance_scaling_`. JAX and Keras truncate `he_normal`.
    Raises: as in `variance_scaling_` and `calculate_gain`.
    Source: He et al. 2015, eq. 10 (fan_in), 14 (fan_out) and 15 (leaky).
    """
    return variance_scaling_(tensor, calculate_gain(nonlinearity, a), _fan_mode(mode), "normal", generator)


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
    return variance_scaling_(tensor, calculate_gain(nonlinearity, a), _fan_mode(mode), "uniform", generator)


@torch.no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Rng = None) -> Tensor:
    """Fill with `gain` times a (semi-)orthogonal matrix drawn uniformly (by Haar measure).

    tensor: flattened to a matrix `(out, in * prod(kernel))`, whose rows or columns, the fewer of them, become
    orthonormal; an entry has variance gain**2 / max(rows, columns). An empty tensor is left alone.
    Trap: a convolution with such a kernel is not an isometry: flattened patches overlap.
    Raises: ValueError for fewer than 2 dimensions.
    Source: Saxe et al. 2014 (arXiv 1312.6120); Mezzadri 2007 (math-ph/0609050) for the signs.
    """
    _check_tensor(tensor, least=2)
    _check_floating(tensor)
    if tensor.numel() == 0 or tensor.is_meta:
        return tensor
    rows = tensor.shape[0]
    gaussian = _scratch(tensor, rows, tensor.numel() // rows).normal_(generator=generator)
    wide = rows < gaussian.shape[1]
    q, r = torch.linalg.qr(gaussian.T if wide else gaussian)
    # Only the QR whose R has a positive diagonal makes Q uniform; LAPACK chooses the signs by other rules.
    q *= 1 - 2 * (r.diagonal() < 0).to(q.dtype)
    q = q.T if wide else q
    return tensor.copy_(q.mul_(gain).view(tensor.shape))


@torch.no_grad()
def delta_orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill a kernel's centre with `gain` times a (semi-)orthogonal matrix of Haar measure, the rest with 0.

    tensor: `(out, in, *kernel)` with 1 to 3 kernel dimensions and out >= in. A convolution with it, of stride
    1 and padded to keep the size, is an isometry up to the factor `gain`: it leaves each pixel its place and
    multiplies its norm by `gain`, whatever the padding is filled with. A kernel of size 0 is left alone.
    The centre of an even kernel is (k - 1) // 2, as in JAX and TensorFlow: with it padding="same" loses no
    pixel, while torch's `dirac_` takes k // 2. Trap: with groups, fill the rows of each group on their own.
    Raises: ValueError unless it has 3 to 5 dimensions and out >= in: fewer channels cannot keep all norms.
    Source: Xiao et al. 2018 (arXiv 1806.05393), algorithm 2.
    """
    _check_tensor(tensor, least=3, most=5)
    _check_floating(tensor)
    out, channels, *kernel = tensor.shape
    if out < channels:
        raise ValueError(
            f"expected a shape (out, in, *kernel) with out >= in; got {tuple(tensor.shape)}; to keep "
            "only the norms of gradients, call orthogonal_ on the centre of a kernel of zeros"
        )
    if tensor.numel() == 0 or tensor.is_meta:
        return tensor
    q = orthogonal_(tensor.new_empty(out, channels), gain, generator)
    tensor.zero_()[(..., *((size - 1) // 2 for size in kernel))] = q
    return tensor


@torch.no_grad()
def looks_linear_(tensor: Tensor, gain: float = 1.0, generator: Rng = None) -> Tensor:
    """Fill with [W', -W'], so that a layer fed by a concatenated ReLU starts as the linear map W'.

    tensor: `(out, 2 * d, *kernel)`: the inputs are (relu(y), relu(-y)) for some y of d channels, whence
    W' relu(y) - W' relu(-y) = W' y. W' is `gain` times orthogonal, for a kernel delta-orthogonal, and keeps
    norms if out >= d. An empty tensor is left alone.
    Trap: it takes a CReLU before the layer. For plain ReLUs, d of the units must mirror the other d:
    [[W', -W'], [-W', W']].
    Raises: ValueError unless it has 2 to 5 dimensions and an even number of input channels, for a kernel also
    out >= d.
    Source: Balduzzi et al. 2017 (arXiv 1702.08591); Shang et al. 2016 for the CReLU.
    """
    _check_tensor(tensor, least=2, most=5)
    _check_floating(tensor)
    out, channels, *kernel = tensor.shape
    if channels % 2 or (kernel and 2 * out < channels):
        raise ValueError(
            "expected a shape (out, 2 * d), or (out, 2 * d, *kernel) with out >= d; "
            f"got {tuple(tensor.shape)}"
        )
    fill_ = delta_orthogonal_ if kernel else orthogonal_
    half = fill_(tensor.new_empty(out, channels // 2, *kernel), gain, generator)
    return tensor.copy_(torch.cat([half, -half], dim=1))


@torch.no_grad()
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Rng = None) -> Tensor:
    """Fill with draws from N(0, std**2), then set ceil(sparsity * rows) entries of each column to 0.

    tensor: `(out, in)`; the rows of the zeros are drawn afresh for each column, one input's weights.
    Raises: ValueError unless it has 2 dimensions and 0 <= sparsity <= 1; RuntimeError for std < 0 or NaN.
    Source: Martens 2010, "Deep learning via Hessian-free optimization".
    """
    _check_tensor(tensor, least=2, most=2)
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be between 0 and 1; got {sparsity}")
    zeros = math.ceil(sparsity * tensor.shape[0])
    tensor.normal_(0.0, std, generator=generator)
    # The largest of random keys stand at uniformly random places.
    keys = torch.rand(tensor.T.shape, generator=generator, device=tensor.device)
    tensor.T.scatter_(1, keys.topk(zeros, dim=1, sorted=False).indices, 0.0)
    return tensor


@torch.no_grad()
def output_prior_bias_(tensor: Tensor, frequencies: Tensor | Sequence[float]) -> Tensor:
    """Fill the bias of a softmax layer with log class frequencies, so that the bias alone predicts them.

    tensor: `(..., classes)`. frequencies: `(classes,)`, counts or shares; they are divided by their sum.
    While all other contributions to the logits are 0, the loss is the entropy of the frequencies, not
    log(classes).
    Trap: a single sigmoid output needs log(p / (1 - p)) instead, the difference of the two entries.
    Raises: ValueError unless there is one frequency for each class, all positive and finite: log(0) would
    forbid a class for ever, so give a class that has not been seen a small count.
    Source: Lin et al. 2017, "Focal loss for dense object detection", Section 3.3.
    """
    _check_tensor(tensor, least=1)
    _check_floating(tensor)
    shares = torch.as_tensor(frequencies, dtype=torch.float64)
    if shares.shape != tensor.shape[-1:]:
        raise ValueError(f"expected {tensor.shape[-1]} frequencies; got shape {tuple(shares.shape)}")
    if not ((shares > 0) & shares.isfinite()).all():
        raise ValueError(f"frequencies must be positive and finite; got {shares.tolist()}")
    return tensor.copy_((shares / shares.sum()).log().expand_as(tensor))
