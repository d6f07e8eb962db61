"""Errors from elsewhere, as part of a message of graft's."""

import pytest

from graft.errors import sentence


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such key"), "no such key."),
        (ValueError("\n Not found.\nMore of it"), "Not found."),
        (ValueError("is it there?"), "is it there?"),
        (ValueError("expected one of:\n a\n b"), "expected one of."),
        (ValueError("  "), "ValueError."),
        (KeyError("name"), "'name'."),
    ],
)
def test_a_foreign_error_is_one_sentence(error: Exception, said: str) -> None:
    assert sentence(error) == said
