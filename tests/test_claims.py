"""The table of claims: complete, in its own words or the documents', and each row shown by a cell."""

import re
from collections import Counter

import pytest
from claim_cells import holds, notebook, section, showing
from notebook_links import NOTEBOOKS_FOLDER
from quotations import is_quoted

from course_utils.claims import DOCUMENTS, EVIDENCE, SLIPS, TOPICS, VERDICTS, Claim, as_table, claims
from course_utils.claims.browser import Browser

SIZES = {"S0": 49, "S1": 32, "S2": 58, "S3": 45, "S4": 24}
LEAST_SHOWN = 170  # by a measurement or an assertion
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[-+]?\d+)?|-?\.\d+")


def complaints(claim: Claim) -> list[str]:
    """Return what is wrong with a row by itself."""
    found = []
    for name, known in (("verdict", VERDICTS), ("topic", TOPICS), ("evidence", EVIDENCE)):
        if getattr(claim, name) not in known:
            found.append(f"{name} {getattr(claim, name)!r}")
    wrong = claim.verdict in ("imprecise", "false")
    if (claim.slip in SLIPS) != wrong:
        found.append(f"slip {claim.slip!r} of a statement that is {claim.verdict}")
    if claim.verdict != "true" and not claim.right:
        found.append("it does not say what is right")
    for words in re.findall(r'"([^"]+)"', claim.says):
        if not is_quoted(words, list(DOCUMENTS).index(claim.document)):
            found.append(f"{claim.document} does not say {words!r}")
    number, _, heading = claim.place.partition("#")
    if not section(notebook(number)[1].cells, heading):
        found.append(f"there is no heading {heading!r} in {number}")
    elif next(showing(claim), None) is None:
        found.append(f"no cell under {claim.place} has {claim.evidence} {claim.shows!r}")
    if claim.predicted is not None:
        numbers = [float(text.replace(",", "")) for text in NUMBER.findall(claim.shows)]
        room = claim.tolerance * abs(claim.predicted) or claim.tolerance
        if not any(abs(x - claim.predicted) <= room for x in numbers):
            found.append(f"{claim.shows!r} holds no number near {claim.predicted}")
    return found


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim.id)
def test_a_claim_has_a_verdict_and_a_cell_that_shows_it(claim):
    assert complaints(claim) == []


def test_no_claim_is_absent():
    assert Counter(claim.document for claim in claims()) == SIZES
    wanted = [f"{name}-{number:02d}" for name, size in SIZES.items() for number in range(1, size + 1)]
    assert sorted(claim.id for claim in claims()) == sorted(wanted)


def test_most_claims_are_measured_or_asserted():
    shown = [claim for claim in claims() if claim.evidence in ("measured", "asserted")]
    assert len(shown) >= LEAST_SHOWN


def test_cells_know_which_claims_they_show():
    noted = {}
    for path in NOTEBOOKS_FOLDER.glob("*.ipynb"):
        for cell in notebook(path.name[:2])[1].cells:
            noted |= {name: (path.name[:2], cell) for name in cell.metadata.get("claims", [])}
    assert noted.keys() == {claim.id for claim in claims()}, "run `python tests/claim_cells.py`"
    for claim in claims():
        number, cell = noted[claim.id]
        assert number == claim.place[:2]
        assert holds(cell, claim), f"{claim.id}: run `python tests/claim_cells.py`"


PLANTED = {
    "verdict": "right",
    "topic": "weather",
    "evidence": "believed",
    "slip": "",
    "right": "",
    "says": 'They say "words that no document holds anywhere at all".',
    "place": "02#No such heading",
    "shows": "a number that no cell prints",
    "predicted": 12345.0,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name):
    wrong = next(claim for claim in claims() if claim.verdict == "false")
    assert complaints(wrong) == []
    fields = {field: getattr(wrong, field) for field in wrong.__dataclass_fields__}
    assert complaints(Claim(**fields | {name: PLANTED[name]}))


def test_the_browser_shows_the_rows_that_its_menus_ask_for():
    browser = Browser(NOTEBOOKS_FOLDER)
    assert f"{sum(c.verdict == 'false' for c in claims())} of {len(claims())}" in browser.rows.value
    browser.menus["document"].value, browser.menus["verdict"].value = "S2", "all"
    assert f"{SIZES['S2']} of {len(claims())}" in browser.rows.value
    browser.menus["topic"].value = "tanh and sigmoid"
    wanted = [c for c in claims() if c.document == "S2" and c.topic == "tanh and sigmoid"]
    assert browser.chosen() == wanted
    assert [c.id in browser.rows.value for c in claims()] == [c in wanted for c in claims()]


def test_a_table_leads_to_the_evidence():
    claim = next(c for c in claims() if c.id == "S2-23")
    header, _, row = as_table([claim], {"03": "03_tanh.ipynb"}).splitlines()
    assert header.count("|") == row.count("|")
    assert claim.says in row
    assert f"](03_tanh.ipynb#{claim.place[3:].replace(' ', '-')}) |" in row
