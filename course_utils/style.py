"""The style sheet of everything interactive."""

from pathlib import Path

import ipywidgets as widgets

from course_utils.plotting import BLUE, ORANGE


def style_sheet() -> widgets.HTML:
    """Return the course's style sheet as a widget: what contains it is styled wherever it is shown.

    Its colours are those of the figures.
    """
    colors = f":root {{ --course-blue: {BLUE}; --course-orange: {ORANGE}; }}"
    css = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return widgets.HTML(f"<style>{colors}\n{css}</style>", layout=widgets.Layout(display="none"))
