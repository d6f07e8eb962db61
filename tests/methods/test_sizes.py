"""The models the counts are taken on are themselves of the published size."""

import pytest

from graft.methods.lora import LoRA
from methods.sizes import counts, sized

TOTALS = {
    "bert-base": 109_483_778, "bert-large": 335_143_938, "roberta-base": 124_647_170, "roberta-large": 355_361_794,
    "wav2vec2-large": 315_703_947, "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080,
    "llama-7b": 6_738_415_616, "llama-13b": 13_015_864_320, "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672, "llama2-70b": 68_976_648_192, "t5-base": 222_903_552,
}  # fmt: skip


@pytest.mark.parametrize("name", TOTALS)
def test_total_is_the_published_one_with_and_without_an_adapter(name: str) -> None:
    assert sum(p.numel() for p in sized(name).parameters()) == TOTALS[name]
    assert counts(name, LoRA(rank=1)).total == TOTALS[name]
