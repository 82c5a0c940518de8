"""Interactive demos: a question, controls, a figure that follows them, and what it shows in a sentence.

Each file but `canvas` and `demo` is one: `<name>_figure`, a pure function of the controls' values, and
`<name>_demo`, the controls over it, found here by name and loaded when first asked for: `demos.tanh_demo()`.
"""

from importlib import import_module
from pathlib import Path

NAMES = sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__", "canvas", "demo"})


def __getattr__(name: str) -> object:
    stem, _, kind = name.rpartition("_")
    if stem not in NAMES or kind not in ("figure", "demo"):
        raise AttributeError(f"there is no {name!r} here, only {', '.join(__dir__())}")
    figure = getattr(import_module(f"{__name__}.{stem}"), f"{stem}_figure")
    return figure if kind == "figure" else figure.demo


def __dir__() -> list[str]:
    return [f"{name}_{kind}" for name in NAMES for kind in ("demo", "figure")]
