"""Speed as ratios against a peer in the same run, on one thread: `make bench`. `make test` prints its own.

Nothing here is asserted: a ratio depends on the machine and on what else it does. Those that became worse
than in the record are named.
"""

import gzip
import math
import struct
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, Popen

import nbformat
import numpy as np
import torch
from benchmarks_growth import bench_growth
from benchmarks_peers import bench_diagnose_floor, bench_initializer_floors, bench_networks, bench_peers
from benchmarks_record import compare_or_store
from benchmarks_timing import NOTED, best, note, ratio
from browser import FLAGS, SIZE, Visit, find_chromium, jupyter_lab
from forked_kernels import forked_kernels
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Error, sync_playwright
from scipy.optimize import brentq
from store_outputs import NOTEBOOK_METADATA
from threadpoolctl import threadpool_limits
from torch import nn

from course_utils import activations, data, demos, initializers, mean_field, propagation
from course_utils.doctor.diagnosis import diagnose
from course_utils.sweeps import sweep


def bench_initializers():
    w = torch.empty(1024, 1024)
    small = torch.empty(512, 512)
    print("time of course_utils.initializers / time of torch.nn.init, 1024 x 1024 float32")
    for name, options in [
        ("normal_", {}),
        ("uniform_", {}),
        ("xavier_uniform_", {}),
        ("kaiming_normal_", {"nonlinearity": "relu"}),
        ("trunc_normal_", {"a": -2.0, "b": 2.0}),
    ]:
        ours, theirs = (
            partial(getattr(module, name), w, **options) for module in (initializers, torch.nn.init)
        )
        print(f"  {name:16} {note(f'{name} / torch.nn.init', ratio(ours, theirs)):6.2f}")
    orthogonal = ratio(*(partial(m.orthogonal_, small) for m in (initializers, torch.nn.init)), rounds=5)
    note("orthogonal_ / torch.nn.init", orthogonal)
    print(f"  {'orthogonal_':16} {orthogonal:6.2f}   (512 x 512)")


def bench_exact_laws():
    n, rounds, generator = 512, 10_000, torch.Generator().manual_seed(0)

    def loop(rounds=100):
        for _ in range(rounds):
            y = torch.randn(n, n) @ torch.randn(n)
            y.mean().item(), y.square().mean().item()

    law = best(
        lambda: propagation.norm_chain(
            activations.linear, math.sqrt(n), 1, n, count=rounds, generator=generator
        )
    )
    drawn = best(loop, repeat=3) * 100
    note("norm_chain / drawing W", law / drawn)
    print(f"y = W x, {rounds:,} rounds, n = {n}: drawing W / exact law = {drawn / law:,.0f}")
    for activation in (activations.linear, activations.tanh, activations.relu):
        chain = best(
            lambda a=activation: propagation.norm_chain(a, 1.0, 100, n, count=1000, generator=generator),
            repeat=3,
        )
        print(f"1,000 networks of 100 {activation.name} layers, n = {n}: {chain:.2f} s")


def bench_phase_diagram():
    gain, bias_std = np.meshgrid(np.linspace(0.2, 2, 100), np.linspace(0.01, 0.6, 100))

    def one_by_one():
        for g, b in zip(gain.flat[::100], bias_std.flat[::100], strict=True):
            brentq(lambda q, g=g, b=b: mean_field.length_map(activations.tanh, q, g, b) - q, 1e-12, 5)

    whole = best(lambda: mean_field.fixed_point(activations.tanh, gain, bias_std), repeat=3)
    points = best(one_by_one, repeat=3) * gain.size / 100
    note("fixed_point, all at once / one by one", whole / points)
    print(f"tanh, 100 x 100 fixed points: {whole:.2f} s; one by one / all at once: {points / whole:.0f}")


def bench_gain():
    own = lambda z: torch.where(z > 0.3, z, torch.tanh(z) / 2)  # noqa: E731
    for name, function in [("gelu", activations.gelu), ("a kink and a jump at 0.3", own)]:
        print(f"gain of {name}: {1e3 * best(lambda f=function: mean_field.gain_behind(f)):.1f} ms")


def bench_diagnose():
    encoder = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True)
    layers = [layer for _ in range(8) for layer in (nn.Linear(256, 256), nn.ReLU())]
    print("time of diagnose / time of one forward and backward pass")
    for name, model, shape, rounds in [
        ("8 layers of 256, batch 64", nn.Sequential(*layers), (64, 256), 50),
        ("transformer, 85 million", nn.TransformerEncoder(encoder, 12), (4, 128, 768), 2),
    ]:
        inputs = torch.randn(shape)

        def one_pass(model=model, inputs=inputs):
            model.zero_grad()
            model(inputs).square().mean().backward()

        against = note(
            f"diagnose / one pass, {name}", ratio(partial(diagnose, model, inputs), one_pass, rounds)
        )
        print(f"  {name:26} {against:.1f}")


def bench_idx():
    pixels = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), np.uint8)
    raw = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.gz")
        path.write_bytes(gzip.compress(raw, 1))
        against = ratio(lambda: data.read_idx(path), lambda: gzip.decompress(path.read_bytes()), rounds=3)
    note("read_idx / gzip.decompress", against)
    print(f"read_idx of 60,000 images / gzip.decompress alone: {against:.2f}")


def bench_sweep():
    def nap(gain, seed):
        time.sleep(0.05)

    def loop():
        for gain in range(100):
            nap(gain, 0)

    print("time of a sweep of 100 tasks of 50 ms / time of a loop")
    for workers in (1, 2):
        ours = partial(sweep, nap, {"gain": range(100)}, seeds=1, workers=workers)
        against = note(f"sweep, {workers} at a time / a loop", ratio(ours, loop, rounds=2))
        print(f"  {workers} at a time {against:.3f}")


# Moves each slider in turn down and up again, which no end of it stops; `window.times` says how long the
# browser took until it had each new picture on the page, but for the first few, which only warm up.
PRESS = """async (demo) => {
    const image = demo.querySelector("img"), sliders = demo.querySelectorAll("[role=slider]");
    const times = [], pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
    let pressed;
    const shown = () => times.push(performance.now() - pressed);
    image.addEventListener("load", () => requestAnimationFrame(shown));
    await pause(2000);
    for (let k = 0; k < 16; k++) {
        const up = Math.floor(k / sliders.length) % 2 === 1;
        const key = { key: up ? "PageUp" : "PageDown", bubbles: true, cancelable: true };
        pressed = performance.now();
        sliders[k % sliders.length].dispatchEvent(new KeyboardEvent("keydown", key));
        await pause(400);
    }
    window.times = times.slice(4);
}"""
PORT = 9222


@contextmanager
def chromium():
    """Start a Chromium that goes on while nobody is connected to it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        flags = ["--headless=new", f"--remote-debugging-port={PORT}", f"--user-data-dir={home}", *FLAGS]
        process = Popen([find_chromium(), *flags], stderr=DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def connected(patience=30):
    """Connect to that Chromium's page."""
    with sync_playwright() as playwright:
        connect = partial(playwright.chromium.connect_over_cdp, f"http://127.0.0.1:{PORT}")
        for _ in range(patience):
            with suppress(Error):
                browser = connect()
                break
            time.sleep(1)
        yield browser.contexts[0].pages[0]
        browser.close()


def bench_demos():
    if find_chromium() is None:
        print("no Chromium found: the demos are not timed in a browser")
        return
    set_up = "import torch\nfrom course_utils import demos, plotting\n"
    set_up += "plotting.use_course_style()\ntorch.set_num_threads(1)"
    print("from slider to picture, in the browser: median and 95th percentile in ms")
    with forked_kernels(), jupyter_lab() as server, chromium():
        for name in (f"{name}_demo" for name in demos.NAMES):  # one on a page, as in the notebooks
            cells = [new_code_cell(source) for source in (set_up, f"demos.{name}()")]
            notebook = new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)
            nbformat.write(notebook, server.root / f"{name}.ipynb")
            with connected() as page:
                visit = Visit(page, server)
                visit.open(f"lab/tree/{name}.ipynb")
                page = visit.page
                page.set_viewport_size(SIZE)
                page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady")
                page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
                page.locator(".course-demo").evaluate(f"demo => void ({PRESS})(demo)")
            time.sleep(10)  # nobody is connected meanwhile: a debugger would copy every picture
            with connected() as page:
                times = page.evaluate("window.times")
            print(f"  {name:26} {np.median(times):.0f} {np.percentile(times, 95):.0f}", flush=True)


def main(storing):
    torch.set_num_threads(1)
    with threadpool_limits(1):
        bench_initializers()
        bench_peers()
        bench_initializer_floors()
        bench_exact_laws()
        bench_networks()
        bench_phase_diagram()
        bench_gain()
        bench_diagnose()
        bench_diagnose_floor()
        bench_idx()
        bench_sweep()
        bench_growth()
    compare_or_store(NOTED, storing)
    bench_demos()


if __name__ == "__main__":
    main("--record" in sys.argv)
