"""The style sheet of everything interactive."""

from pathlib import Path

import ipywidgets as widgets


def style_sheet() -> widgets.HTML:
    """Return the course's style sheet as a widget: what contains it is styled wherever it is shown."""
    css = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return widgets.HTML(f"<style>{css}</style>", layout=widgets.Layout(display="none"))
