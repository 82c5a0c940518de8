"""What `make bench` holds the package against: the sources' code, other libraries, the machine's best.

JAX and Keras are timed where the extra `bench` is installed.
"""

import math
import os
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from benchmarks_timing import note, ratio, times
from torch import nn

from course_utils import activations, initializers, propagation

N, SMALL = 1024, 512  # sides of a matrix; of an orthogonal one
HE, XAVIER = math.sqrt(2 / N), math.sqrt(3 / N)
OURS = {
    "normal": initializers.normal_,
    "Xavier uniform": initializers.xavier_uniform_,
    "He normal": partial(initializers.kaiming_normal_, nonlinearity="relu"),
    "LeCun truncated": partial(initializers.variance_scaling_, distribution="truncated_normal"),
    "orthogonal": initializers.orthogonal_,
}


def side(law):
    return SMALL if law == "orthogonal" else N


def sized(fills):
    return [(law, side(law), fill) for law, fill in fills.items()]


def numpy_calls():
    """The same matrices as articles write them, with NumPy's global random numbers."""
    return {
        "normal": lambda: np.random.randn(N, N),
        "Xavier uniform": lambda: np.random.uniform(-1, 1, (N, N)) * XAVIER,
        "He normal": lambda: np.random.randn(N, N) * HE,
        "orthogonal": lambda: np.linalg.qr(np.random.randn(SMALL, SMALL))[0],
    }


def torch_calls():
    std, peers = 1 / math.sqrt(N) / initializers._STD_CUT_AT_TWO, nn.init
    fills = {
        "normal": peers.normal_,
        "Xavier uniform": peers.xavier_uniform_,
        "He normal": partial(peers.kaiming_normal_, nonlinearity="relu"),
        "LeCun truncated": partial(peers.trunc_normal_, std=std, a=-2 * std, b=2 * std),
        "orthogonal": peers.orthogonal_,
    }
    return {law: partial(fill, torch.empty(n, n)) for law, n, fill in sized(fills)}


def jax_calls():
    if not find_spec("jax"):
        return None
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax

    init, key = jax.nn.initializers, jax.random.key(0)
    fills = {
        "normal": init.normal(1.0),
        "Xavier uniform": init.glorot_uniform(),
        "He normal": init.variance_scaling(2.0, "fan_in", "normal"),
        "LeCun truncated": init.lecun_normal(),
        "orthogonal": init.orthogonal(),
    }
    return {law: lambda f=f, n=n: f(key, (n, n)).block_until_ready() for law, n, f in sized(fills)}


def keras_calls():
    if not find_spec("keras"):
        return None
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("KERAS_HOME", os.devnull)  # else it writes its settings into the home folder
    from keras import initializers as init

    fills = {
        "normal": init.RandomNormal(stddev=1.0, seed=0),
        "Xavier uniform": init.GlorotUniform(seed=0),
        "He normal": init.VarianceScaling(2.0, "fan_in", "untruncated_normal", seed=0),
        "LeCun truncated": init.LecunNormal(seed=0),
        "orthogonal": init.Orthogonal(seed=0),
    }
    return {law: lambda f=f, n=n: np.asarray(f((n, n))) for law, n, f in sized(fills)}


def floors(n, columns):
    """An n x n array filled with normal numbers at best, copied, and a product of n x n and n x `columns`."""
    w, other, product = torch.empty(n, n), torch.ones(n, n), torch.empty(n, columns)
    x, rng, out = torch.ones(n, columns), np.random.default_rng(0), np.empty((n, n), np.float32)
    fill = min(times([w.normal_, lambda: rng.standard_normal(out=out, dtype=np.float32)]))
    return fill, *times([lambda: w.copy_(other), lambda: torch.mm(other, x, out=product)])


def bench_peers():
    peers = {"NumPy": numpy_calls(), "torch": torch_calls(), "JAX": jax_calls(), "Keras": keras_calls()}
    print(f"time of course_utils.initializers / time of a peer, {N} x {N}; orthogonal {SMALL} x {SMALL}")
    for name in [name for name, calls in peers.items() if calls is None]:
        print(f"  {name}: not installed")
    for law, n, fill in sized(OURS):
        calls = {name: laws[law] for name, laws in peers.items() if laws and law in laws}
        ours, *theirs = times([partial(fill, torch.empty(n, n)), *calls.values()], rounds=7)
        cells = [
            f"{note(f'{law} / {name}', ours / t):5.2f} {name}" for name, t in zip(calls, theirs, strict=True)
        ]
        print(f"  {law:16} {'   '.join(cells)}")


def bench_initializer_floors():
    print("time of an initializer / floor: filling with normal numbers, copying, a product of the same flops")
    for law, n, fill in sized(OURS):
        # QR and its Q take 8/3 n**3 flops, scaling by a gain n**2
        fill_time, copy_time, product = floors(n, 4 * n // 3 if law == "orthogonal" else 1)
        [ours] = times([partial(fill, torch.empty(n, n))], rounds=7)
        shares = {"fill": ours / fill_time, "copy": ours / copy_time, "product": ours / product}
        print(f"  {law:16}", *(f"{note(f'{law} / floor: {k}', s):8.2f} {k}" for k, s in shares.items()))


def numpy_network(n=SMALL, depth=100):
    """As articles write it: a new matrix for each layer, in float64."""
    x = np.random.randn(n)
    for _ in range(depth):
        x = np.maximum(np.random.randn(n, n) * np.sqrt(2 / n) @ x, 0)
    return x.mean(), x.std()


def torch_network(n=SMALL, depth=100):
    x = torch.randn(n)
    for _ in range(depth):
        x = torch.relu(nn.init.kaiming_normal_(torch.empty(n, n), nonlinearity="relu") @ x)
    return x.mean(), x.std()


def bench_networks(n=SMALL, depth=100):
    """The law of 100 ReLU layers: the sources' loop, ours with the same matrices, ours without a matrix."""
    generator = torch.Generator().manual_seed(0)
    he = partial(initializers.kaiming_normal_, nonlinearity="relu")
    relu, options = activations.relu, {"generator": generator}
    drawn = partial(propagation.simulate, relu, he, [n] * (depth + 1), count=1, **options)
    exact = partial(propagation.norm_chain, relu, math.sqrt(2), depth, n, count=100, **options)
    ours, law, loop, theirs = times([drawn, exact, numpy_network, torch_network], rounds=3)
    fill, _, product = floors(n, depth)
    print(f"{depth} ReLU layers of {n}: time of one network / peer, floor")
    for name, ratio_ in [
        ("simulate / the sources' loop in NumPy", ours / loop),
        ("simulate / the same loop in torch", ours / theirs),
        ("simulate / floor: fill the matrices", ours / (depth * fill)),
        ("simulate / floor: product of the same flops", ours / product),
        ("norm_chain / the sources' loop in NumPy", law / 100 / loop),
        ("norm_chain / floor: fill its normal numbers", law / 100 / (fill * (depth + 1) / n)),
    ]:
        print(f"  {name:46} {note(name, ratio_):9.4g}")


def bench_diagnose_floor(width=256, depth=8, batch=64):
    """Forward and backward are three products of the same flops, but for the first layer's input gradient."""
    from course_utils.doctor.diagnosis import diagnose

    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    model, inputs = nn.Sequential(*layers), torch.randn(batch, width)
    w, x = torch.randn(width, width), torch.randn(width, (3 * depth - 1) * batch)
    floor = ratio(partial(diagnose, model, inputs), lambda: w @ x)
    note("diagnose / floor: product of the same flops", floor)
    print(f"diagnose, {depth} layers / floor: a product of the same flops {floor:.1f}")
