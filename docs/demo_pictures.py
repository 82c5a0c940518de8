"""Pictures of the demos for pages without a kernel: each at some settings of its controls, with sentences.

They are drawn by the demo's own figure function. What has been drawn is kept as long as the package stays the
same.
"""

import hashlib
import html
import inspect
import itertools
import json
import math
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from course_utils import demos
from course_utils.demos import canvas

ROOT = Path(__file__).parent.parent
MOST = 144  # pictures of a demo
MANY = 21  # steps of a slider
Setting = tuple[object, str]  # a value and its name


def settings_of(control: object, count: int) -> list[Setting]:
    """Return about `count` settings of a control, evenly spaced, the one that it starts with among them."""
    if hasattr(control, "options"):
        known = list(zip(control._options_values, control._options_labels, strict=True))
    else:
        steps = round((control.max - control.min) / control.step)
        exponents = (control.min + k * control.step for k in range(steps + 1))
        base = getattr(control, "base", None)
        values = [round(base**x, 12) if base else type(control.value)(round(x, 12)) for x in exponents]
        known = [(value, format(value, control.readout_format)) for value in values]
    first = next(place for place, (value, _) in enumerate(known) if _same(value, control.value))
    known[first] = control.value, known[first][1]
    last, slack = len(known) - 1, len(known) // (4 * count)
    places = np.linspace(0, last, min(count, len(known))).round().astype(int).tolist()
    places = [_roundest(known, place, slack if 0 < place < last else 0) for place in places]
    places[min(range(len(places)), key=lambda k: abs(places[k] - first))] = first
    return [known[place] for place in places]


def _roundest(known: list[Setting], place: int, slack: int) -> int:
    """Return the place, at most so far from a place, of the setting whose name has the fewest digits."""
    digits = [len(re.sub(r"\D", "", label).strip("0")) for _, label in known]
    return min(range(place - slack, place + slack + 1), key=lambda k: (digits[k], abs(k - place)))


def _same(value: object, wanted: object) -> bool:
    return value == wanted or (isinstance(wanted, float) and math.isclose(value, wanted))


def counts_of(controls: list) -> list[int]:
    """Return how many settings of each control to draw: all of a menu, and of sliders what then is left.

    The first slider gets most. One whose turn never comes stays where it starts.
    """
    whole = [len(c.options) if hasattr(c, "options") else MANY for c in controls]
    menus = [type(c).__name__ == "Dropdown" for c in controls]
    counts = [n if menu else 1 for n, menu in zip(whole, menus, strict=True)]
    weights = [3 if place == menus.index(False) else 1 for place in range(len(counts))]
    while True:
        may_grow = [
            place
            for place, count in enumerate(counts)
            if count < whole[place] and math.prod(counts) // count * (count + 1) <= MOST
        ]
        if not may_grow:
            return counts
        counts[min(may_grow, key=lambda place: counts[place] / weights[place])] += 1


def _drawn(name: str, folder: Path) -> dict:
    """Draw a demo's pictures into the folder, and return its question, controls and sentences."""
    torch.set_num_threads(1)
    draw, context = getattr(demos, f"{name}_figure"), canvas.reusing()
    first = inspect.signature(draw).parameters
    controls = {key: control(value=first[key].default) for key, control in draw.demo.keywords.items()}
    counts = counts_of([*controls.values()])
    chosen = [settings_of(control, count) for control, count in zip(controls.values(), counts, strict=True)]
    sentences = []
    for place, values in enumerate(itertools.product(*chosen)):
        figure, sentence = context.run(draw, **{key: v for key, (v, _) in zip(controls, values, strict=True)})
        figure.canvas.draw()
        picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
        few = picture.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).convert("RGB")
        few.save(folder / f"{name}-{place}.webp", lossless=True, quality=60)
        sentences.append(sentence)
    shown = [
        {
            "label": control.description,
            "menu": type(control).__name__ == "Dropdown",
            "names": [label for _, label in options],
            "first": [value for value, _ in options].index(control.value),
        }
        for control, options in zip(controls.values(), chosen, strict=True)
    ]
    return {"question": draw.demo.args[0], "size": picture.size, "controls": shown, "sentences": sentences}


def draw_all(folder: Path) -> None:
    """Draw the pictures of all demos, unless those of this package are there, two at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [Path(__file__), *sorted((ROOT / "course_utils").rglob("*.py"))]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = folder / "drawn.json"
    if not stamp.exists() or json.loads(stamp.read_text())["key"] != key:
        for old in folder.iterdir():
            old.unlink()
        with ProcessPoolExecutor(2) as pool:
            known = dict(
                zip(demos.NAMES, pool.map(_drawn, demos.NAMES, [folder] * len(demos.NAMES)), strict=True)
            )
        stamp.write_text(json.dumps({"key": key, "demos": known}))


def demo_html(name: str, folder: Path) -> str:
    """Return a demo as HTML: question, controls, picture, sentence, and what course.js needs to move them."""
    known = json.loads((folder / "drawn.json").read_text())["demos"][name]
    controls, place, parts = known["controls"], 0, []
    for control in controls:
        names, first, label = control["names"], control["first"], html.escape(control["label"])
        place = place * len(names) + first
        if len(names) == 1:
            parts.append(f"<span>{label}: {html.escape(names[0])}</span>")
        elif control["menu"]:
            options = "".join(
                f'<option value="{k}"{" selected" * (k == first)}>{html.escape(text)}</option>'
                for k, text in enumerate(names)
            )
            parts.append(f"<label>{label} <select>{options}</select></label>")
        else:
            data, now = html.escape(json.dumps(names, ensure_ascii=False)), html.escape(names[first])
            parts.append(
                f'<label>{label} <input type="range" max="{len(names) - 1}" value="{first}" '
                f'data-names="{data}" aria-valuetext="{now}"> <output>{now}</output></label>'
            )
    width, height = known["size"]
    note = f"{len(known['sentences'])} settings are drawn here; the demo in the notebook has all of them."
    sentences = html.escape(json.dumps(known["sentences"], ensure_ascii=False))
    return f"""<form class="course-demo" data-name="{name}" data-sentences="{sentences}" data-first="{place}">
<p><strong>{html.escape(known["question"])}</strong></p>
<div class="course-controls">{"".join(parts)} <button type="reset">Reset</button></div>
<img src="demos/{name}-{place}.webp" alt="The demo's figure; what it shows stands below it in words."
 width="{width}" height="{height}">
<p role="status">{html.escape(known["sentences"][place])}</p>
<p class="course-note">{note}</p>
</form>"""
