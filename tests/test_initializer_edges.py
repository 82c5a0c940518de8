"""Initializers at the ends of what they take; the faults outlived the other tests (`make mutants`)."""

import pytest
import torch
from initializer_cases import DTYPES, seeded

from course_utils import initializers as init


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_number_may_be_a_mean_or_a_bound(dtype):
    largest, w = torch.finfo(dtype).max, torch.empty(5, dtype=dtype)
    assert (init.normal_(w, largest, 0.0) == largest).all()
    assert (init.trunc_normal_(w, 0.0, 0.0, -largest, -largest) == -largest).all()


def test_variance_scaling_alone_is_lecun():
    w, v = torch.empty(2, 6, 4)
    assert torch.equal(
        init.variance_scaling_(w, generator=seeded(0)), init.lecun_normal_(v, generator=seeded(0))
    )
