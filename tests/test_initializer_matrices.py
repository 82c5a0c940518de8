"""Initializers: orthogonal and sparse matrices.

A statistical check measures how far a sample is from the exact law, in standard errors of that law, and fails
beyond Z_LIMIT of them; generators are seeded. Every numeric check is a function of the initializer that it
checks: it is run on the true one, which must pass, and on faulty ones, which must not.
"""

import math

import numpy as np
import pytest
import torch
from initializer_cases import DTYPES, check_z, refuses, seeded

from course_utils import initializers as init

# --- Orthogonal ---

SHAPES_OF_Q = [(12, 12), (5, 30), (30, 5), (4, 3, 5), (20, 2, 3, 3), (4, 2, 3, 2, 2), (1, 6), (6, 1), (1, 1)]


def check_orthogonal(initializer, shape, gain=1.0, dtype=torch.float32):
    """Rows or columns are orthonormal up to rounding.

    Rounding each entry by half a unit moves an inner product of unit vectors by at most eps (Cauchy-Schwarz);
    the factorization itself is good to about size * eps of the precision it is computed in.
    """
    w = initializer(torch.empty(shape, dtype=dtype), gain=gain, generator=seeded(8))
    q = w.detach().double().reshape(shape[0], -1) / gain
    q = q if q.shape[0] <= q.shape[1] else q.T
    working = torch.float64 if dtype == torch.float64 else torch.float32
    bound = torch.finfo(dtype).eps + max(q.shape) * torch.finfo(working).eps
    assert (q @ q.T - torch.eye(len(q))).abs().max() < bound


def check_haar(initializer, shape, count=4000):
    """Moments that a uniform (semi-)orthogonal matrix has, entry by entry and (if square) as a whole."""
    generator, size = seeded(9), max(shape)
    draws = [initializer(torch.empty(shape), generator=generator) for _ in range(count)]
    q = torch.stack(draws).double().numpy()
    check_z(q.mean(0), math.sqrt(1 / size / count), "the mean of an entry")
    check_z((q > 0).mean(0) - 0.5, 0.5 / math.sqrt(count), "the chance of a positive entry")
    spread = math.sqrt(3 / (size * (size + 2)) - 1 / size**2)
    check_z((q**2).mean(0) - 1 / size, spread / math.sqrt(count), "the variance of an entry")
    if shape[0] == shape[1]:
        check_z(np.linalg.det(q).mean(), 1 / math.sqrt(count), "the determinant")
        trace = np.trace(q, axis1=1, axis2=2)
        check_z((trace**2).mean() - 1, math.sqrt(2 / count), "the squared trace")


@pytest.mark.parametrize("shape", SHAPES_OF_Q, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_orthogonal(shape, dtype):
    for gain in (1.0, math.sqrt(2), 0.1):
        check_orthogonal(init.orthogonal_, shape, gain, dtype)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)], ids=str)
def test_orthogonal_is_haar(shape):
    check_haar(init.orthogonal_, shape)


def factorized(factorize):
    return lambda w, generator: w.copy_(factorize(torch.empty(w.shape).normal_(generator=generator)))


def rotation(x):
    q, r = torch.linalg.qr(x)
    q *= r.diagonal().sign()
    q[0] *= q.det()
    return q


FAULTY_Q = {
    "naive QR": factorized(lambda x: torch.linalg.qr(x).Q),
    "left singular vectors": factorized(lambda x: torch.linalg.svd(x).U),
    "identity": lambda w, generator: init.eye_(w),
    "rotations only": factorized(rotation),
    "random signs": factorized(lambda x: torch.diag(x[0].sign())),
    "normalized rows": factorized(lambda x: x / x.norm(dim=1, keepdim=True)),
}


@pytest.mark.parametrize("fault", FAULTY_Q)
def test_faulty_orthogonal_is_noticed(fault):
    if fault == "normalized rows":
        refuses(check_orthogonal, lambda w, gain, generator: FAULTY_Q[fault](w, generator), (4, 4))
    else:
        refuses(check_haar, FAULTY_Q[fault], (4, 4))


def test_faulty_gain_of_orthogonal_is_noticed():
    def squared(w, gain, generator):
        return init.orthogonal_(w, gain**2, generator)

    refuses(check_orthogonal, squared, (6, 6), gain=1.01)


# --- Sparse ---


def check_sparse(initializer, sparsity=0.3, std=0.2, shape=(101, 400)):
    """Count, position and spread of the zeros, and the law of the rest."""
    rows, columns = shape
    w = initializer(torch.full(shape, 7.0), sparsity, std, seeded(10))
    zero = (w == 0).numpy()
    zeros = math.ceil(sparsity * rows)
    assert (zero.sum(0) == zeros).all()
    share = zeros / rows
    check_z(zero.mean(1) - share, math.sqrt(share * (1 - share) / columns), "zeros in a row")
    # Pairs of neighbours: down a column drawn without replacement, otherwise independent. The variance is as
    # for independent zeros, where pairs overlap; a fixed number of zeros in a column only lowers it.
    variance = share**2 * (1 - share**2) + 2 * share**3 * (1 - share)
    down, along, diagonal = zero[1:] & zero[:-1], zero[:, 1:] & zero[:, :-1], zero[1:, 1:] & zero[:-1, :-1]
    both = share * (zeros - 1) / (rows - 1)
    check_z(down.mean() - both, math.sqrt(variance / down.size), "pairs in a column")
    check_z(along.mean() - share**2, math.sqrt(variance / along.size), "pairs in a row")
    check_z(diagonal.mean() - share**2, math.sqrt(variance / diagonal.size), "diagonal pairs")
    values = w[w != 0].double().numpy()
    check_z(values.mean(), std / math.sqrt(values.size), "the mean")
    check_z(np.mean(values**2) / std**2 - 1, math.sqrt(2 / values.size), "the variance")


def zeros_at(rows_of_zeros):
    def initializer(w, sparsity, std, generator):
        init.normal_(w, 0, std, generator)
        count = math.ceil(sparsity * w.shape[0])
        return w.scatter_(0, rows_of_zeros(w, generator)[:count] % w.shape[0], 0.0)

    return initializer


def ranked(w, generator):
    return torch.rand(w.shape, generator=generator).argsort(0)


FAULTY_ZEROS = {
    "same rows": zeros_at(lambda w, generator: ranked(w, generator)[:, :1].expand(w.shape)),
    "first rows": zeros_at(lambda w, generator: torch.arange(len(w))[:, None].expand(w.shape)),
    "a block": zeros_at(lambda w, generator: ranked(w, generator)[:1] + torch.arange(len(w))[:, None]),
    "moving along": zeros_at(lambda w, generator: ranked(w, generator)[:, :1] + torch.arange(w.shape[1])),
    "rows and columns swapped": lambda w, *rest: w.copy_(init.sparse_(torch.empty(w.T.shape), *rest).T),
    "one zero short": lambda w, sparsity, *rest: init.sparse_(w, sparsity - 1 / len(w), *rest),
    "each entry at random": lambda w, s, std, g: w.normal_(0, std, generator=g).mul_(
        torch.rand(w.shape, generator=g) >= s
    ),
    "variance given for std": lambda w, sparsity, std, g: init.sparse_(w, sparsity, std**2, g),
}


def test_sparse():
    check_sparse(init.sparse_)
    for sparsity in (0.0, 0.01, 0.5, 0.999, 1.0):
        w = init.sparse_(torch.ones(50, 9), sparsity, generator=seeded(1))
        assert ((w == 0).sum(0) == math.ceil(sparsity * 50)).all()


@pytest.mark.parametrize("fault", FAULTY_ZEROS)
def test_faulty_sparse_is_noticed(fault):
    refuses(check_sparse, FAULTY_ZEROS[fault])
