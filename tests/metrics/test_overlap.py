"""Against sacrebleu and rouge-score, with several references, on whole corpora and on resamples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF, TER

from graft import metrics
from graft.errors import BadInput

PEERS = {"bleu": BLEU, "chrf": CHRF, "ter": TER}
ROUGES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
WORD = st.sampled_from(["the", "cat", "cats", "sat", "running", "runs", "mat", ".", "x", "été", "\n"])
TEXT = st.lists(WORD, max_size=9).map(" ".join)
FULL = st.lists(WORD.filter(str.isalpha), min_size=1, max_size=9).map(" ".join)
CORPUS = st.lists(st.tuples(TEXT, FULL, FULL), min_size=1, max_size=6)


def made(corpus: list[tuple[str, ...]]) -> list[dict]:
    return [
        {"item": i, "output": output, "reference": list(references)} for i, (output, *references) in enumerate(corpus)
    ]


@pytest.mark.parametrize("name", PEERS)
@settings(max_examples=50, deadline=None)
@given(corpus=CORPUS)
def test_equal_to_sacrebleu(name: str, corpus: list[tuple[str, str, str]]) -> None:
    outputs, *references = (list(column) for column in zip(*corpus, strict=True))
    score = metrics.get(name).score(made(corpus))
    assert score.value == pytest.approx(PEERS[name]().corpus_score(outputs, references).score, abs=1e-9)
    sentence = BLEU(effective_order=True) if name == "bleu" else PEERS[name]()
    assert score.items == pytest.approx([sentence.sentence_score(o, refs).score for o, *refs in corpus], abs=1e-9)


@pytest.mark.parametrize("name", PEERS)
def test_resamples_equal_sacrebleu(name: str) -> None:
    draw = np.random.default_rng(0)
    words = np.array(["a", "list", "of", "keys", "and", "values", "in", "this", "file", "returns"])
    corpus = [tuple(" ".join(draw.choice(words, draw.integers(3, 12))) for _ in range(3)) for _ in range(15)]
    chosen = draw.integers(0, 15, (10, 15))
    metric = metrics.get(name)
    weights = np.stack([np.bincount(row, minlength=15) for row in chosen]).astype(float)
    got = metric.weighted(metric.statistics(made(corpus)), weights)
    for value, row in zip(got, chosen, strict=True):
        outputs, *references = (list(column) for column in zip(*(corpus[i] for i in row), strict=True))
        assert value == pytest.approx(PEERS[name]().corpus_score(outputs, references).score)


@pytest.mark.parametrize("name", ROUGES)
@settings(max_examples=30, deadline=None)
@given(corpus=CORPUS)
def test_equal_to_rouge_score(name: str, corpus: list[tuple[str, str, str]]) -> None:
    scorer = RougeScorer([name], use_stemmer=True)
    wanted = [100 * max(scorer.score(ref, output)[name].fmeasure for ref in refs) for output, *refs in corpus]
    score = metrics.get(name).score(made(corpus))
    assert score.items == pytest.approx(wanted)
    assert score.value == pytest.approx(np.mean(wanted))


def test_the_summary_form_of_rouge_reads_lines() -> None:
    records = [{"output": "the cat sat\nit was late", "reference": "it was late\nthe cat sat"}]
    assert metrics.get("rougeLsum").score(records).value == pytest.approx(100)
    assert metrics.get("rougeL").score(records).value == pytest.approx(50)


def test_rouge_of_a_script_it_cannot_see_is_undefined_not_zero() -> None:
    score = metrics.get("rougeL").score([{"output": "кошка", "reference": "кошка"}])
    assert np.isnan(score.value) and "use chrf" in score.reason
    assert metrics.get("chrf").score([{"output": "кошка", "reference": "кошка"}]).value == pytest.approx(100)


@pytest.mark.parametrize("name", PEERS)
def test_empty_references_are_undefined(name: str) -> None:
    score = metrics.get(name).score([{"output": "a cat", "reference": ""}])
    assert np.isnan(score.value) and score.reason == "every reference is empty"


def test_no_references_are_refused() -> None:
    with pytest.raises(BadInput, match="item 0: reference must hold at least one text"):
        metrics.get("bleu").score([{"output": "a", "reference": []}])
