"""What users read is what was stored, read and committed."""

from stored_texts import STORED, texts


def test_what_users_read_is_as_stored():
    assert texts() == STORED.read_text(encoding="utf-8"), (
        "run `python tests/stored_texts.py`, and read the difference"
    )
