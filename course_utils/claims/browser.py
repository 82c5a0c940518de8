"""A browser of the claims: choose a document, a verdict and a topic, and see the rows."""

import html
import re
from pathlib import Path

import ipywidgets as widgets

from course_utils.claims import COLUMNS, DOCUMENTS, TOPICS, VERDICTS, Claim, claims, link
from course_utils.style import style_sheet

_ALL = "all"


class Browser(widgets.VBox):
    """Menus of documents, verdicts and topics over a table of the claims that fit all three."""

    def __init__(self, folder: str = ".") -> None:
        self._files = {path.name[:2]: path.name for path in Path(folder).glob("*.ipynb")}
        documents = [(_ALL, _ALL), *((name, key) for key, name in DOCUMENTS.items())]
        self.menus = {
            "document": widgets.Dropdown(description="document", options=documents),
            "verdict": widgets.Dropdown(description="verdict", options=(_ALL, *VERDICTS), value="false"),
            "topic": widgets.Dropdown(description="topic", options=(_ALL, *TOPICS)),
        }
        self.rows = widgets.HTMLMath().add_class("course-claims")
        for menu in self.menus.values():
            menu.observe(lambda _: self.show(), names="value")
        controls = widgets.Box([*self.menus.values()]).add_class("course-controls")
        super().__init__([style_sheet(), controls, self.rows])
        self.show()

    def __repr__(self) -> str:
        return f"Browser of {len(claims())} claims"

    def chosen(self) -> list[Claim]:
        """Return the claims that fit all menus."""
        wanted = {name: menu.value for name, menu in self.menus.items() if menu.value != _ALL}
        return [c for c in claims() if all(getattr(c, name) == value for name, value in wanted.items())]

    def show(self) -> None:
        """Show the rows that the menus ask for."""
        found = self.chosen()
        rows = "".join(self._row(claim) for claim in found)
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        self.rows.value = f"<p>{len(found)} of {len(claims())}</p><table><tr>{head}</tr>{rows}</table>"

    def _row(self, claim: Claim) -> str:
        cells = [claim.id, *(_as_html(text) for text in (claim.says, claim.verdict, claim.right or "–"))]
        address = html.escape(link(claim, self._files), quote=True)
        cells.append(f'<a href="{address}">{claim.place[:2]}, {claim.evidence}</a>')
        return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _as_html(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))
