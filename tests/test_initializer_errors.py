"""Initializers: what they refuse, and that they then have written and drawn nothing.

A statistical check measures how far a sample is from the exact law, in standard errors of that law, and fails
beyond Z_LIMIT of them; generators are seeded. Every numeric check is a function of the initializer that it
checks: it is run on the true one, which must pass, and on faulty ones, which must not.
"""

import inspect
import re
from functools import partial

import pytest
import torch
from initializer_cases import (
    ALL,
    INF,
    NAN,
    RANDOM,
    STOCHASTIC,
    refuses,
    seeded,
)

from course_utils import initializers as init


def check_refused(initializer, tensor, arguments, error, message):
    """The right error with a message that helps, the tensor and the generator untouched."""
    before, generator = tensor.clone(), seeded(1)
    state = generator.get_state()
    takes = "generator" in inspect.signature(initializer).parameters
    with_generator = {"generator": generator} if takes else {}
    try:
        with pytest.raises(error, match=message):
            initializer(tensor, **arguments, **with_generator)
    except pytest.fail.Exception as failure:
        raise AssertionError("nothing was raised") from failure
    assert torch.equal(tensor, before)
    assert torch.equal(generator.get_state(), state)


# --- Bad input ---

LAYER = (4, 6)
REFUSED = {
    "nonlinearity": (init.kaiming_normal_, LAYER, {"nonlinearity": "gelu"}, ValueError, "'selu'.*got 'gelu'"),
    "nonlinearity in capitals": (
        init.kaiming_normal_,
        LAYER,
        {"nonlinearity": "ReLU"},
        ValueError,
        "got 'ReLU'",
    ),
    "nonlinearity no name": (
        init.kaiming_normal_,
        LAYER,
        {"nonlinearity": ["relu"]},
        ValueError,
        r"got \['relu'\]",
    ),
    "kaiming mode": (
        init.kaiming_normal_,
        LAYER,
        {"mode": "fan_on"},
        ValueError,
        "'fan_in', 'fan_out', 'fan_avg'; got 'fan_on'",
    ),
    "mode None": (init.kaiming_uniform_, LAYER, {"mode": None}, ValueError, "got None"),
    "mode": (
        init.variance_scaling_,
        LAYER,
        {"mode": "both"},
        ValueError,
        "'fan_in', 'fan_out', 'fan_avg'; got 'both'",
    ),
    "distribution": (
        init.variance_scaling_,
        LAYER,
        {"distribution": "log"},
        ValueError,
        "'uniform', 'truncated_normal'; got 'log'",
    ),
    "kaiming vector": (init.kaiming_normal_, (4,), {}, ValueError, r"2 or more dimensions; got shape \(4,\)"),
    "xavier vector": (init.xavier_uniform_, (4,), {}, ValueError, r"2 or more dimensions; got shape \(4,\)"),
    "lecun scalar": (init.lecun_normal_, (), {}, ValueError, r"2 or more dimensions; got shape \(\)"),
    "orthogonal vector": (init.orthogonal_, (4,), {}, ValueError, r"2 or more dimensions; got shape \(4,\)"),
    "eye 3-D": (init.eye_, (2, 2, 2), {}, ValueError, r"with 2 dimensions; got shape \(2, 2, 2\)"),
    "eye 1-D": (init.eye_, (2,), {}, ValueError, r"with 2 dimensions; got shape \(2,\)"),
    "sparse 3-D": (init.sparse_, (2, 2, 2), {"sparsity": 0.1}, ValueError, "with 2 dimensions; got shape"),
    "dirac 2-D": (init.dirac_, LAYER, {}, ValueError, r"3 to 5 dimensions; got shape \(4, 6\)"),
    "dirac 6-D": (init.dirac_, (1,) * 6, {}, ValueError, "3 to 5 dimensions; got shape"),
    "groups": (init.dirac_, (4, 2, 3), {"groups": 3}, ValueError, r"dimension 0 \(size 4\); got 3"),
    "no groups": (init.dirac_, (4, 2, 3), {"groups": 0}, ValueError, "got 0"),
    "negative groups": (init.dirac_, (4, 2, 3), {"groups": -2}, ValueError, "got -2"),
    "groups a float": (init.dirac_, (4, 2, 3), {"groups": 2.0}, TypeError, "float"),
    "normal std": (init.normal_, LAYER, {"std": -1}, ValueError, "std >= 0.*mean=0.0, std=-1"),
    "normal std NaN": (init.normal_, LAYER, {"std": NAN}, ValueError, "std >= 0.*nan"),
    "normal std infinite": (
        init.normal_,
        LAYER,
        {"std": INF},
        ValueError,
        "fit into torch.float32; .*std=inf",
    ),
    "uniform bounds": (init.uniform_, LAYER, {"a": 2, "b": 1}, RuntimeError, "from=2 > to=1"),
    "uniform bound NaN": (init.uniform_, LAYER, {"a": NAN}, RuntimeError, "out of bounds"),
    "uniform bound infinite": (init.uniform_, LAYER, {"b": INF}, RuntimeError, "out of bounds"),
    "normal std too large": (init.normal_, LAYER, {"std": 1e38}, ValueError, r"std=1e\+38"),
    "normal mean NaN": (init.normal_, LAYER, {"mean": NAN}, ValueError, "mean=nan"),
    "normal mean too large": (init.normal_, LAYER, {"mean": -1e39}, ValueError, r"mean=-1e\+39"),
    "xavier gain": (init.xavier_normal_, LAYER, {"gain": -1}, ValueError, "gain >= 0.*gain=-1"),
    "xavier uniform gain": (init.xavier_uniform_, LAYER, {"gain": -1}, ValueError, "gain >= 0.*gain=-1"),
    "slope NaN": (init.kaiming_normal_, LAYER, {"a": NAN}, ValueError, "gain >= 0.*gain=nan"),
    **{
        f"{initializer.__name__} gain {gain}": (
            initializer,
            shape,
            {"gain": gain},
            ValueError,
            re.escape(f"gain={gain}"),
        )
        for initializer, shape in [
            (init.variance_scaling_, LAYER),
            (init.lecun_uniform_, LAYER),
            (init.orthogonal_, LAYER),
            (init.delta_orthogonal_, (6, 4, 3)),
            (init.looks_linear_, LAYER),
            (init.looks_linear_, (6, 4, 3)),
        ]
        for gain in (-0.5, NAN, INF, -INF, 4e37)
    },
    "gain of truncated": (
        init.variance_scaling_,
        LAYER,
        {"gain": NAN, "distribution": "truncated_normal"},
        ValueError,
        "gain=nan",
    ),
    "truncated std": (init.trunc_normal_, LAYER, {"std": -1}, ValueError, "std >= 0.*mean=0.0, std=-1"),
    "truncated std too large": (init.trunc_normal_, LAYER, {"std": 1e300}, ValueError, r"std=1e\+300"),
    "truncated mean NaN": (init.trunc_normal_, LAYER, {"mean": NAN}, ValueError, "mean=nan"),
    "truncated std NaN": (init.trunc_normal_, LAYER, {"std": NAN}, ValueError, "std=nan"),
    "truncated std infinite": (init.trunc_normal_, LAYER, {"std": INF}, ValueError, "std=inf"),
    "truncated bound NaN": (init.trunc_normal_, LAYER, {"a": NAN}, ValueError, "a=nan"),
    "truncated other bound NaN": (init.trunc_normal_, LAYER, {"b": NAN}, ValueError, "b=nan"),
    "truncated bounds": (init.trunc_normal_, LAYER, {"a": 2, "b": 1}, ValueError, "a <= b.*got a=2, b=1"),
    "truncated bounds too large": (init.trunc_normal_, LAYER, {"a": 1e39, "b": INF}, ValueError, r"a=1e\+39"),
    "truncated at infinity": (init.trunc_normal_, LAYER, {"a": INF, "b": INF}, ValueError, "a=inf, b=inf"),
    "truncated at minus infinity": (init.trunc_normal_, LAYER, {"a": -INF, "b": -INF}, ValueError, "b=-inf"),
    "sparsity high": (init.sparse_, LAYER, {"sparsity": 1.1}, ValueError, "between 0 and 1; got 1.1"),
    "sparsity low": (init.sparse_, LAYER, {"sparsity": -0.1}, ValueError, "between 0 and 1; got -0.1"),
    "sparsity NaN": (init.sparse_, LAYER, {"sparsity": NAN}, ValueError, "between 0 and 1; got nan"),
    "too few frequencies": (
        init.output_prior_bias_,
        (3,),
        {"frequencies": [0.5, 0.5]},
        ValueError,
        r"expected 3 frequencies, .* got \[0.5, 0.5\]",
    ),
    "frequencies a column": (
        init.output_prior_bias_,
        (3, 3),
        {"frequencies": torch.ones(3, 1)},
        ValueError,
        r"got \[\[1.0\], \[1.0\], \[1.0\]\]",
    ),
    "prior of one logit": (
        init.output_prior_bias_,
        (3, 1),
        {"frequencies": [5.0]},
        ValueError,
        r"at least 2, .* got \[5.0\]",
    ),
    "prior of a scalar": (init.output_prior_bias_, (), {"frequencies": [1]}, ValueError, "1 or more dim"),
    **{
        f"frequency {bad}": (
            init.output_prior_bias_,
            (3,),
            {"frequencies": [2.0, bad, 1.0]},
            ValueError,
            rf"positive and finite; got \[2.0, {bad}, 1.0\]",
        )
        for bad in (0.0, -1.0, NAN, INF)
    },
    "sparse std": (init.sparse_, LAYER, {"sparsity": 0.1, "std": -1}, ValueError, "std >= 0.*-1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case):
    initializer, shape, arguments, error, message = REFUSED[case]
    check_refused(initializer, torch.full(shape, 7.0), arguments, error, message)


def writes_first(w, sparsity, generator):
    return init.sparse_(init.normal_(w), sparsity, generator=generator)


def draws_first(w, sparsity, generator):
    torch.rand(1, generator=generator)
    return init.sparse_(w, sparsity, generator=generator)


@pytest.mark.parametrize("faulty", [torch.nn.init.sparse_, writes_first, draws_first])
def test_faulty_refusal_is_noticed(faulty):
    refuses(check_refused, faulty, torch.full(LAYER, 7.0), {"sparsity": 1.1}, ValueError, None)


@pytest.mark.parametrize("name", STOCHASTIC)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_what_is_no_floating_number_is_refused(name, dtype):
    initializer, shape = STOCHASTIC[name]
    with_no_bits_lost = torch.ones(shape, dtype=dtype)
    check_refused(initializer, with_no_bits_lost, {}, NotImplementedError, str(dtype))


def test_inference_mode_itself_is_no_obstacle():
    parameter = torch.nn.Parameter(torch.full(LAYER, 7.0))
    with torch.inference_mode():
        for w in (torch.full(LAYER, 7.0), parameter):
            assert init.orthogonal_(w, generator=seeded(1)) is w
            assert not (w == 7).any()


EMPTY = [(0, 5), (5, 0), (0, 0), (3, 2, 0)]


@pytest.mark.parametrize("shape", EMPTY, ids=str)
@pytest.mark.parametrize("name", [name for name in RANDOM if name.startswith(("var", "lec", "xav", "kai"))])
def test_empty_tensors_get_a_warning(name, shape):
    w = torch.empty(shape)
    with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op") as caught:
        assert RANDOM[name][0](w) is w
    if not isinstance(RANDOM[name][0], partial) and name != "variance_scaling":
        assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "name", ["uniform", "normal", "trunc_normal", "tail", "orthogonal", "sparse", "constant", "eye"]
)
def test_other_empty_tensors_pass_silently(name):
    for shape in EMPTY[:3]:
        w = torch.empty(shape)
        assert ALL[name][0](w) is w
    assert init.dirac_(torch.empty(2, 2, 0)).shape == (2, 2, 0)
