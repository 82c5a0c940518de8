"""The ratios of `make bench`: `make bench RECORD=1` stores them, later runs name those that became worse."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PATH = Path(__file__).with_name("benchmarks.json")
FACTOR = 1.5  # two runs on a machine that does something else, too, differ by less
PACKAGES = ("torch", "numpy", "scipy", "jax", "keras")


def installed(package: str) -> str:
    try:
        return version(package).split("+")[0]  # without the build, such as +cpu
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        lines = []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def circumstances() -> dict:
    versions = {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES}
    return {"processor": processor(), "versions": versions}


def store(ratios: dict[str, float], path: Path = PATH) -> None:
    record = circumstances() | {"ratios": {name: float(f"{x:.3g}") for name, x in ratios.items()}}
    path.write_text(json.dumps(record, indent=1) + "\n")


def regressions(then: dict[str, float], now: dict[str, float]) -> list[tuple[str, float, float]]:
    """Return (name, then, now) of the ratios that grew by more than FACTOR; less is better."""
    return [
        (name, then[name], now[name]) for name in then.keys() & now if not now[name] <= FACTOR * then[name]
    ]


def report(then: dict, now: dict) -> str:
    """Compare two records: circumstances that differ, what only one of them has, and the regressions."""
    pairs = [("processor", then["processor"], now["processor"])]
    pairs += [(name, old, now["versions"].get(name)) for name, old in then["versions"].items()]
    lines = [f"{name}: {old} then, {new} now" for name, old, new in pairs if old != new]
    old, new = then["ratios"], now["ratios"]
    lines += [f"not measured now: {name}" for name in old if name not in new]
    lines += [f"not in the record: {name}" for name in new if name not in old]
    worse = sorted(regressions(old, new), key=lambda row: row[1] / row[2])
    lines.append(f"{len(worse)} of {len(old.keys() & new)} ratios are worse by more than a factor {FACTOR:g}")
    if worse:
        lines.append(f"  {'regression':58} {'then':>8} {'now':>8}")
    return "\n".join(lines + [f"  {name:58} {a:8.3g} {b:8.3g}" for name, a, b in worse])


def compare_or_store(ratios: dict[str, float], storing: bool, path: Path = PATH) -> None:
    """Print how the ratios compare with the record; store them, unless they lack one that it has."""
    then = json.loads(path.read_text()) if path.exists() else None
    if then:
        print(report(then, circumstances() | {"ratios": ratios}))
    if storing and then and (lacking := then["ratios"].keys() - ratios):
        raise SystemExit(
            f"not stored: {len(lacking)} ratios are missing; install the extra bench, or remove {path}"
        )
    if storing:
        store(ratios, path)
        print(f"stored {len(ratios)} ratios in {path.name}")
