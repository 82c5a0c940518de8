"""What five documents say about initialization: each checkable statement, its verdict, its evidence.

One file for each document. Sentences are in our own words, but for what stands in quotation marks.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

DOCUMENTS = {
    "S0": "the thread",
    "S1": "the overview",
    "S2": "the article",
    "S3": "the notes",
    "S4": "the post",
}
VERDICTS = ("true", "true with a condition", "imprecise", "false")
# How a statement goes wrong.
SLIPS = (
    "second moment for variance",
    "one run for a law",
    "a proxy for the proof",
    "a formula slip",
    "a missing condition",
    "attribution or history",
    "library defaults",
    "words",
)
TOPICS = (
    "scale",
    "tanh and sigmoid",
    "ReLU",
    "backward signal",
    "zeros and symmetry",
    "biases and losses",
    "training",
    "orthogonal weights",
    "norms and branches",
    "time and attention",
    "sparse and pruned",
    "libraries",
    "history",
)
# Where its number or sentence is found: in an output, in an assertion, or in prose only.
EVIDENCE = ("measured", "asserted", "derived", "read", "recalled")
COLUMNS = ("id", "what is said", "verdict", "what holds", "evidence")  # of a table of claims


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of a document.

    `says` is the statement, `right` what holds instead, or the condition; `slip` one of SLIPS where it is
    imprecise or false. `place` is a notebook's number and a heading, as in "02#Try it"; a cell there holds
    `shows`, with a number within `tolerance`, relative, of `predicted` where there is one.
    """

    id: str
    topic: str
    says: str
    verdict: str
    right: str
    place: str
    shows: str
    evidence: str
    slip: str = ""
    predicted: float | None = None
    tolerance: float = 0.05

    @property
    def document(self) -> str:
        """The document's short name in DOCUMENTS, such as "S2"."""
        return self.id.partition("-")[0]


@cache
def claims() -> tuple[Claim, ...]:
    """Return all claims, in the order of the documents."""
    return tuple(_read())


def _read() -> Iterator[Claim]:
    for document in DOCUMENTS:
        text = files(__name__).joinpath(f"{document}.toml").read_text(encoding="utf-8")
        yield from (Claim(**row) for row in tomllib.loads(text)["claim"])


def link(claim: Claim, files: Mapping[str, str]) -> str:
    """Return the address of a claim's evidence, a heading in JupyterLab.

    `files` are the notebooks' file names by their numbers, such as {"02": "02_one_over_sqrt_n.ipynb"}.
    """
    number, _, heading = claim.place.partition("#")
    return f"{files[number]}#{heading.replace('*', '').replace(' ', '-')}"


def as_table(rows: Iterable[Claim], files: Mapping[str, str]) -> str:
    """Return claims as a table in Markdown, with links to their evidence; `files` as for `link`."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|:--" * len(COLUMNS) + "|"]
    for c in rows:
        evidence = f"[{c.place[:2]}, {c.evidence}]({link(c, files)})"
        lines.append(f"| {c.id} | {c.says} | {c.verdict} | {c.right or '–'} | {evidence} |")
    return "\n".join(lines)
