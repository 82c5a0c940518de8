"""Whether words stand in one of the five documents, which are not part of the course: their hashes are.

`python tests/quotations.py FOLDER` writes the hashes anew from the texts, in the order of their names.
"""

import hashlib
import re
import sys
from functools import cache
from pathlib import Path

STORED = Path(__file__).with_name(
    "quotations.txt"
)  # for each document two lines: hashes of pairs, and of fours
LENGTHS = (2, 4)
LETTERS = 5  # a wrong pair or four is taken for a quoted one in less than a hundredth of the cases


def runs(text: str, length: int) -> set[str]:
    """Return the hashes of all runs of so many words, or of all words together if there are fewer."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    found = [words[i : i + length] for i in range(max(1, len(words) - length + 1))]
    return {hashlib.sha256(" ".join(run).encode()).hexdigest()[:LETTERS] for run in found}


@cache
def documents() -> tuple[dict[int, frozenset[str]], ...]:
    """Return the known hashes of each document, by the length of the runs."""
    lines = STORED.read_text(encoding="ascii").splitlines()
    known = [frozenset(line[i : i + LETTERS] for i in range(0, len(line), LETTERS)) for line in lines]
    return tuple(dict(zip(LENGTHS, pair, strict=True)) for pair in zip(known[::2], known[1::2], strict=True))


def is_quoted(text: str, document: int | None = None) -> bool:
    """Return whether all runs of words of `text` stand in one document, or in the one with this number."""
    length = LENGTHS[len(re.findall(r"[a-z0-9]+", text.lower())) >= LENGTHS[1]]
    chosen = documents() if document is None else documents()[document : document + 1]
    return any(runs(text, length) <= known[length] for known in chosen)


def main(folder: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(folder).glob("*.txt"))]
    lines = ["".join(sorted(runs(text, length))) for text in texts for length in LENGTHS]
    STORED.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(*sys.argv[1:])
