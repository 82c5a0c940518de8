"""What the tests of initializers share: the checks' limits, and the initializers as a table."""

import inspect
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import special, stats

from course_utils import initializers as init

Z_LIMIT = 5.0
KS_LIMIT = special.kolmogi(2 * stats.norm.sf(Z_LIMIT))  # the same chance of a false alarm, 6e-7

HALF = (torch.float16, torch.bfloat16)
DTYPES = (torch.float64, torch.float32, *HALF)
INF, NAN = math.inf, math.nan


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def check_z(error, standard_error, what):
    z = np.abs(np.asarray(error) / standard_error).max()
    assert z < Z_LIMIT, f"{what} is {z:.1f} standard errors off"


def refuses(check, *faulty, **options):
    """Assert that the check notices a planted fault."""
    with pytest.raises(AssertionError):
        check(*faulty, **options)


RANDOM = {
    "uniform": (init.uniform_, (6, 4)),
    "normal": (init.normal_, (6, 4)),
    "trunc_normal": (init.trunc_normal_, (6, 4)),
    "tail": (partial(init.trunc_normal_, a=1, b=2), (6, 4)),
    "variance_scaling": (init.variance_scaling_, (6, 4, 3)),
    "variance_scaling uniform": (partial(init.variance_scaling_, distribution="uniform"), (6, 4, 3)),
    "variance_scaling truncated": (partial(init.variance_scaling_, distribution="truncated_normal"), (6, 4)),
    "lecun_normal": (init.lecun_normal_, (6, 4)),
    "lecun_uniform": (init.lecun_uniform_, (6, 4)),
    "xavier_normal": (init.xavier_normal_, (6, 4)),
    "xavier_uniform": (init.xavier_uniform_, (6, 4)),
    "kaiming_normal": (init.kaiming_normal_, (6, 4)),
    "kaiming_uniform": (init.kaiming_uniform_, (6, 4)),
    "orthogonal": (init.orthogonal_, (6, 4)),
    "sparse": (partial(init.sparse_, sparsity=0.5), (6, 4)),
}
LISTED = {getattr(function, "func", function) for function, _ in RANDOM.values()}
LISTED |= {init.delta_orthogonal_, init.looks_linear_}  # which have tests of their own
RANDOM |= {
    name: (function, (6, 4))
    for name, function in vars(init).items()
    if name[0] != "_" and name[-1] == "_" and "generator" in inspect.signature(function).parameters
    if function not in LISTED
}
DISCRETE = {"sparse"}  # of few values, so that many of their entries are equal
STOCHASTIC = RANDOM | {  # the others have tests of their own
    "delta_orthogonal": (init.delta_orthogonal_, (6, 4, 3)),
    "looks_linear": (init.looks_linear_, (6, 4)),
    "output_prior_bias": (partial(init.output_prior_bias_, frequencies=[1, 2, 3, 4]), (6, 4)),
}
ALL = RANDOM | {
    "constant": (lambda w, generator=None: init.constant_(w, 0.3), (6, 4)),
    "ones": (lambda w, generator=None: init.ones_(w), (6, 4)),
    "zeros": (lambda w, generator=None: init.zeros_(w), (6, 4)),
    "eye": (lambda w, generator=None: init.eye_(w), (6, 4)),
    "dirac": (lambda w, generator=None: init.dirac_(w, 2), (6, 3, 4)),
    "output_prior_bias": (lambda w, generator=None: init.output_prior_bias_(w, [1, 2, 3, 4]), (6, 4)),
}
