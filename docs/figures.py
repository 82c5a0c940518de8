"""The pictures of the notebooks as files, each with a text for those who do not see it."""

import base64
import html
import io
import re
import unicodedata
from pathlib import Path

from nbformat import NotebookNode
from PIL import Image

PICTURES = Path(__file__).parent.parent / "build" / "pictures"
SIGNS = {
    "sqrt": "√",
    "cdot": "·",
    "times": "×",
    "approx": "≈",
    "le": "≤",
    "ge": "≥",
    "to": "→",
    "mapsto": "→",
    "pm": "±",
    "lambda": "λ",
    "varepsilon": "ε",
    "nabla": "∇",
}


def sign(command: re.Match) -> str:
    """Return the sign or the Greek letter that a command of TeX stands for, or else its name."""
    try:
        return SIGNS.get(command[1]) or unicodedata.lookup(f"GREEK SMALL LETTER {command[1]}")
    except KeyError:
        return f" {command[1]} "


TEX = {
    r"\\operatorname\b": " ",
    r"\\(text|mathbb|[bB]ig[lr]?|left|right)\b *": "",
    r"\\[dt]?frac *(\{[^{}]*\}|\w) *(\{[^{}]*\}|\w|\\\w+)": r"\1/\2",
    r"(\\sqrt|\^)\{([^{}]*[^\w{}-][^{}]*)\}": r"\1(\2)",
    r"\\([a-zA-Z]+) *": sign,
    r"[$*`{}]|\\[,;!]": "",
}


def spoken(markdown: str) -> str:
    """Return Markdown as plain text, and the simplest of TeX with it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    for pattern, sign in TEX.items():
        text = re.sub(pattern, sign, text)
    return re.sub(r" +([.,;:)])", r"\1", " ".join(text.split()))


def how_to_read(cells: list[NotebookNode]) -> str:
    """Return what the text beside a figure says of reading it, up to what would refute it."""
    for cell in cells:
        found = re.search(r"How to read[^:]*: (.*?)(\*\*We would be|$)", cell.source, re.DOTALL)
        if cell.cell_type == "markdown" and found and len(found[1].split()) > 3:
            return found[1][0].upper() + found[1][1:]
    return ""


def alternative(output: NotebookNode, beside: list[NotebookNode], section: str) -> str:
    """Return the text for a picture: its titles and axes, as stored beside it, and how to read it.

    Where nothing is stored, it is what the text after the picture, or else before it, begins with.
    """
    said = output.data["text/plain"]
    axes, _, title = said.partition("\n* ")[0].partition("\n")
    titles = dict.fromkeys([title, *re.findall(r"^\* (.*?),? \[", said, re.MULTILINE)])
    texts = ["; ".join(title for title in titles if title not in ("", "no title")), axes]
    texts = [f"{text}." for text in texts if text and text[0] != "<" and text != "Figure of no axes"]
    prose = [cell.source for cell in beside[::-1] if cell.cell_type == "markdown" and cell.source[0] != "#"]
    told = how_to_read(beside) or ("" if texts or not prose else prose[0].partition("\n")[0])
    return spoken(" ".join([*(texts or [f"The picture of the section “{section}”."]), told]))


def save(picture: Image.Image, name: str) -> str:
    """Write a picture with few colours as a small file without loss, and return its address."""
    path = PICTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").save(path, lossless=True, quality=60, method=4)
    return name


def figure(output: NotebookNode, name: str, beside: list[NotebookNode], section: str) -> str:
    """Write an output's picture, and return HTML that shows it in the size that the notebook gives it."""
    kind = next(kind for kind in output.data if kind.startswith("image/"))
    picture = Image.open(io.BytesIO(base64.b64decode(output.data[kind])))
    width = output.metadata.get(kind, {}).get("width", picture.width)
    sides = f'width="{width}" height="{round(width * picture.height / picture.width)}"'
    alt = html.escape(alternative(output, beside, section))
    return f'<img class="course-figure" src="{save(picture, name)}" alt="{alt}" {sides} loading="lazy">'
