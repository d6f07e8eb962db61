"""Titles say the least that tells which base or data set is meant."""

import pytest

from graft.titles import title


@pytest.mark.parametrize(
    ("place", "said"),
    [("data/trec", "trec"), ("rows.jsonl", "rows"), ("train=a/b.csv,test=c.csv", "b"), ("org/name", "name"),
     ("train=sets/cb/train.jsonl,test=sets/cb/validation.jsonl", "cb"), ("sprout", "sprout"),
     ("/sets/x/trec/", "trec"), ("C:\\data\\sst2", "sst2"), ("/", "/"), ("minilm/model", "minilm"), ("model", "model")],
)  # fmt: skip
def test_titles_are_short(place: str, said: str) -> None:
    assert title(place) == said
