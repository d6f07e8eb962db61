"""The bundled base: found by name, small enough to carry, an ordinary model that knows Python."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from graft import bases
from graft.errors import BadInput

# Neither the standard library nor this snippet was trained on.
CODE = '''def read_lines(path, encoding="utf-8"):
    """Return the lines of a file as a list of strings.

    Raises ValueError if the file is empty.
    """
    with open(path, encoding=encoding) as file:
        lines = file.read().splitlines()
    if not lines:
        raise ValueError(f"{path} is empty")
    return lines
'''


def test_sprout_is_found_by_name() -> None:
    assert "sprout" in bases.names()
    assert (bases.path("sprout") / "config.json").is_file()
    with pytest.raises(BadInput, match=r'no bundled base "sprot"\. Did you mean "sprout"'):
        bases.path("sprot")
    with pytest.raises(BadInput, match="Bundled here: sprout"):
        bases.path("../bases")


def test_sprout_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in bases.path("sprout").iterdir()}
    assert sum(files.values()) <= 22_000_000
    assert set(files) == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip


def test_sprout_is_a_language_model_of_python() -> None:
    model, tokenizer = (kind.from_pretrained(bases.path("sprout")) for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.model_type == "llama" and model.dtype == torch.bfloat16
    assert 6_000_000 <= model.num_parameters() <= 10_000_000
    ids = tokenizer(CODE, return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == CODE
    with torch.no_grad():
        loss = model.float()(ids, labels=ids).loss.item()
    assert loss * ids.shape[1] / len(CODE.encode()) < 0.9  # nats per byte; a uniform guess over bytes has 5.5
    with torch.no_grad():
        backwards = model(ids.flip(1), labels=ids.flip(1)).loss.item()
    assert loss < backwards - 2
    text = tokenizer("import os\n\ndef main():\n    return os.path.", return_tensors="pt")
    words = model.generate(**text, max_new_tokens=6, do_sample=False)
    assert tokenizer.decode(words[0]).startswith("import os\n\ndef main():\n    return os.path.")


def test_the_card_says_what_sprout_saw() -> None:
    card = (bases.path("sprout") / "README.md").read_text(encoding="utf-8")
    rows = [line for line in card.splitlines() if line.startswith("| ") and line.count("|") == 6]
    packages = {row.split("|")[1].strip().lower() for row in rows}
    assert len(packages) > 50 and not packages & {"django", "python"}
    assert all(word in card for word in ("tokens seen", "held-out loss", "graft pretrain"))
    assert not any("GPL" in row for row in rows)
