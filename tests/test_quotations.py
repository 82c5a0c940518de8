"""What stands in quotation marks: the words of one of the five documents, or known to be somebody else's."""

import re

import nbformat
import pytest
from notebook_links import NOTEBOOKS_FOLDER
from quotations import is_quoted

LEAST = 4  # words: shorter ones are names and single words
# What papers and libraries say, what people say in a lecture or in an example, names of sections.
OTHERS = {
    "starts reducing error earlier",
    "decays exponentially with depth",
    "stddev $= \\sqrt{2/n}$",
    "how large is it?",
    "The average of $n$ independent numbers scatters by $1/\\sqrt n$, so $m$ scatters by "
    "$1/\\sqrt{512} = 0.044$.",
    "Because ReLU zeroes half of the units",
    "ReLU halves the ___",
    "He keeps the signal",
    "the size of the gradient",
    "exact at any width",
    "A zero last layer",
    "why not start with all weights zero?",
    "Both layers have χ₁ = 1. Through which would you send a gradient fifty times?",
    "with batch norm I can forget about initialization",
    "if every layer has variance 1, gradients are fine too",
    "all weights times $c$",
    "round it and halve it",
    "we initialize with 1/n, so nothing depends on the width",
    "Nothing depends on the width",
    "the logits change like the layer below",
    "whether it is zero",
    "the activation that follows",
    "What may be zero?",
    "multiply by 5, then it is 0.05, and 0.01 was too little",
}
PATHS = sorted(NOTEBOOKS_FOLDER.glob("*.ipynb"))


def quotations(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what stands in quotation marks in the text, but for the statements of exercises."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    text = "\n".join(cell.source for cell in cells if not cell.id.startswith("exercise-"))
    found = re.findall(r'"([^"\n]+)"', re.sub(r"`[^`]*`", "", text))
    return [words for words in found if len(re.findall(r"\w+", words)) >= LEAST]


def nobodys(words: str) -> bool:
    return words not in OTHERS and not is_quoted(words)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_quotations_are_quotations(path):
    assert [words for words in quotations(nbformat.read(path, as_version=4)) if nobodys(words)] == []


def test_every_known_quotation_is_used():
    used = {words for path in PATHS for words in quotations(nbformat.read(path, as_version=4))}
    assert used >= OTHERS


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("a standard deviation around 1", False),
        ("a standard deviation of around 1", True),
        ("preserves gradient norms exactly", False),
        ("preserves all gradient norms exactly", True),
    ],
)
def test_a_changed_quotation_is_found(words, wrong):
    text = nbformat.v4.new_markdown_cell(f'They say "{words}".')
    assert [nobodys(found) for found in quotations(nbformat.v4.new_notebook(cells=[text]))] == [wrong]
