"""Saved and loaded again, in this process and another: the same outputs, and a model left alone by every error."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

import cases
import zoo
from graft.attach import attach, grafted, merge, use
from graft.checkpoint import load, locate, read, save, save_base, tokenizer_hashes
from graft.checkpoint.source import names
from graft.errors import BadInput, NotApplied, Refused
from graft.methods.lora import LoRA
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.top_layers import TopLayers

NEW_PROCESS = """
import sys, torch, zoo
from graft.checkpoint import load
folder, model_name, *names = sys.argv[1:]
for name in names:
    model = zoo.tiny(model_name)
    load(model, f"{folder}/{name}")
    with torch.no_grad():
        torch.testing.assert_close(zoo.forward(model, zoo.batch(model)), torch.frombuffer(
            bytearray(open(f"{folder}/{name}.out", "rb").read()), dtype=torch.float32
        ).reshape(zoo.forward(model, zoo.batch(model)).shape), rtol=0, atol=1e-6)
print(len(names), "loaded")
"""


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return zoo.forward(model, zoo.batch(model))


def trace(model: nn.Module) -> tuple[Any, ...]:
    """Everything that an unsuccessful load must leave as it was."""
    flags = [(name, p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return flags, hooks, model.config._attn_implementation, torch.get_rng_state()


def untouched(model: nn.Module, before: tuple[Any, ...]) -> None:
    now = trace(model)
    assert [flag[:2] for flag in now[0]] == [flag[:2] for flag in before[0]]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(now[0], before[0], strict=True))
    assert now[1:3] == before[1:3] and torch.equal(now[3], before[3])
    assert grafted(model) is None


def saved(folder: Path, name: str = "lora", model_name: str = "llama", **extra: Any) -> Path:
    model = zoo.tiny(model_name)
    cases.grafted(model, name, "mine")
    return save(model, "mine", folder / "adapter", extra=extra)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "graft.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", cases.NAMES)
def test_loaded_equals_saved(name: str, tmp_path: Path) -> None:
    model_name = cases.one(name)
    model = zoo.tiny(model_name)
    adapter = cases.grafted(model, name, "mine")
    save(model, "mine", tmp_path / "a")
    again = zoo.tiny(model_name)
    loaded = load(again, tmp_path / "a")
    assert torch.equal(outputs(again), outputs(model))
    assert loaded.name == "mine" and loaded.coverage.keys() == adapter.coverage.keys()
    assert loaded.counts.stored == adapter.counts.stored
    with use(again, None):
        assert torch.equal(outputs(again), outputs(zoo.tiny(model_name)))


@pytest.mark.slow
def test_loaded_in_a_new_process_equals_saved(tmp_path: Path) -> None:
    for name in cases.NAMES:
        model = zoo.tiny("t5")
        cases.grafted(model, name, "mine")
        save(model, "mine", tmp_path / name)
        (tmp_path / f"{name}.out").write_bytes(outputs(model).numpy().tobytes())
    command = [sys.executable, "-W", "ignore", "-c", NEW_PROCESS, str(tmp_path), "t5", *cases.NAMES]
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{root / 'src'}:{root / 'tests'}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    seen = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert seen.stdout.strip() == f"{len(cases.NAMES)} loaded", seen.stderr[-2000:]


def test_a_network_that_computed_a_prefix_is_not_stored(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    cases.move(attach(model, PrefixTuning(tokens=3, reparameterize=True, hidden=6), "mine"))
    save(model, "mine", tmp_path / "a")
    assert {key.rpartition(".")[2] for key in load_file(tmp_path / "a" / "adapter.safetensors")} == {"keys", "values"}
    assert read(tmp_path / "a").trained_as["reparameterize"] and not read(tmp_path / "a").method["reparameterize"]
    again = zoo.tiny("llama")
    load(again, tmp_path / "a")
    torch.testing.assert_close(outputs(again), outputs(model))


def test_words_that_a_prompt_began_from_are_not_needed_to_load_it(tmp_path: Path) -> None:
    model = zoo.tiny("llama")

    def words(text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [5, 6, 7]}

    attach(model, PromptTuning(tokens=3, init="text", text="sum it up"), "mine", tokenizer=words)
    save(model, "mine", tmp_path / "a")
    again = zoo.tiny("llama")
    load(again, tmp_path / "a")
    assert torch.equal(outputs(again), outputs(model))


def test_a_task_head_belongs_to_the_adapter(tmp_path: Path) -> None:
    model = zoo.tiny("bert", "classification")
    cases.move(attach(model, LoRA(rank=2), "mine"))
    save(model, "mine", tmp_path / "a")
    again = zoo.tiny("bert", "classification")
    with torch.no_grad():
        again.classifier.weight.normal_()  # as `from_pretrained` leaves a head that no checkpoint has
    load(again, tmp_path / "a")
    assert torch.equal(outputs(again), outputs(model))


def test_parts_fit_whatever_class_is_around_the_base(tmp_path: Path) -> None:
    model = zoo.tiny("bert", "base")
    cases.grafted(model, "lora", "mine")
    save(model, "mine", tmp_path / "a")
    tagger = zoo.tiny("bert", "tagging")
    tagger.bert.load_state_dict({k: v for k, v in zoo.tiny("bert", "base").state_dict().items() if "pooler" not in k})
    load(tagger, tmp_path / "a")
    batch = zoo.batch(model)
    with torch.no_grad():
        assert torch.equal(tagger.bert(**batch).last_hidden_state, model(**batch).last_hidden_state)


def test_the_folder_says_everything(tmp_path: Path) -> None:
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", chat_template="{{ messages }}")
    model = zoo.tiny("llama")
    adapter = cases.grafted(model, "lora", "mine")
    save(model, "mine", tmp_path / "a", tokenizer=tokenizer, extra={"task": "classification", "labels": ["no", "yes"]})
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names >= {"adapter.safetensors", "graft.json", "README.md", "tokenizer.json", "adapter_config.json"}
    record = read(tmp_path / "a")
    assert record.extra == {"task": "classification", "labels": ["no", "yes"]}
    assert record.tokenizer == tokenizer_hashes(tokenizer) and record.tokenizer["chat_template_sha256"]
    assert record.coverage == {"q": 2, "v": 2} and record.counts["trainable"] == adapter.counts.trainable
    assert record.expression == "q v" and record.sites[0] == "decoder.0.q"
    card = (tmp_path / "a" / "README.md").read_text()
    assert card.startswith("---\n") and "classification" in card and "| rank | 3 |" in card
    tensors = load_file(tmp_path / "a" / "adapter.safetensors")
    assert torch.equal(tensors["decoder.0.q.A"], adapter.parts["decoder.0.q"].A)


def test_saving_replaces_an_adapter_and_nothing_else(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "mine")
    save(model, "mine", tmp_path / "a")
    save(model, "mine", tmp_path / "a")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(BadInput, match="Choose another folder"):
        save(model, "mine", tmp_path / "thesis")
    with pytest.raises(BadInput, match="JSON"):
        save(model, "mine", tmp_path / "b", extra={"score": float("nan")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "thesis"]


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    attach(model, LoRA(rank=2), "mine")
    save(model, "mine", tmp_path / "a")
    again = zoo.tiny("llama")
    before = trace(again)
    with pytest.raises(NotApplied, match="does not change the output"):
        load(again, tmp_path / "a")
    untouched(again, before)
    load(again, tmp_path / "a", check=False)


def test_another_adapter_in_use_stays_in_use_when_loading_fails(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    tensors = load_file(folder / "adapter.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "decoder.0.q.A"}, folder / "adapter.safetensors")
    model = zoo.tiny("llama")
    cases.grafted(model, "ia3", "other")
    want = outputs(model)
    with pytest.raises(BadInput, match=r"1 missing: decoder\.0\.q\.A"):
        load(model, folder)
    assert torch.equal(outputs(model), want)
    assert list(grafted(model).adapters) == ["other"]  # type: ignore[union-attr]


def test_all_that_is_wrong_with_the_tensors_is_said_at_once(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    tensors = load_file(folder / "adapter.safetensors")
    tensors["decoder.9.q.A"] = tensors.pop("decoder.0.q.A")
    tensors["decoder.0.q.B"] = torch.zeros(7, 7)
    tensors["decoder.1.q.B"] = torch.zeros(32, 3, dtype=torch.int64)
    save_file(tensors, folder / "adapter.safetensors")
    model = zoo.tiny("llama")
    before = trace(model)
    with pytest.raises(BadInput) as error:
        load(model, folder)
    for word in ("missing: decoder.0.q.A", "not expected: decoder.9.q.A", "[7, 7]", "[32, 3]", "int64"):
        assert word in str(error.value)
    untouched(model, before)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    tensors = load_file(folder / "adapter.safetensors")
    tensors["decoder.0.q.A"][0, 0] = float("nan")
    save_file(tensors, folder / "adapter.safetensors")
    with pytest.raises(BadInput, match=r"decoder\.0\.q\.A holds NaN"):
        load(zoo.tiny("llama"), folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "schema 2"),
        ({"surprise": 1}, "unknown: surprise"),
        ({"name": "../../etc/passwd"}, "no adapter name"),
        ({"name": 3}, "another type: name"),
        ({"method": {"method": "lora", "rank": 3, "power": 9}}, "does not know power"),
        ({"method": {"method": "lora", "rank": "3"}}, "rank='3'"),
        ({"method": {"method": "lora", "rank": 10**9}}, "need 224"),
        ({"method": {"method": "pfeiffer", "bottleneck": 10**9}}, "need 1"),
        ({"method": {"method": "os.system"}}, "no method"),
        ({"method": {"sum": [{"sum": []}]}}, "not described"),
        ({"method": {"method": "lora", "rank": 3, "sites": "q v z"}}, "unknown word"),
        ({"base": {}}, "fingerprint"),
    ],
)
def test_a_description_that_cannot_be_followed_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    edit(folder, **changes)
    model = zoo.tiny("llama")
    before = trace(model)
    with pytest.raises(BadInput, match=said):
        load(model, folder)
    untouched(model, before)


def test_the_base_is_written_without_a_trace(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "mine")
    merge(model, "mine")
    save_base(model, tmp_path / "merged")
    tuned = zoo.tiny("llama")
    cases.move(attach(tuned, TopLayers(k=1)))
    save_base(tuned, tmp_path / "tuned")
    plain = zoo.tiny("llama")
    for folder in ("merged", "tuned"):
        again = type(plain).from_pretrained(tmp_path / folder).eval()
        assert torch.equal(outputs(again), outputs(plain))
    with pytest.raises(BadInput, match="there already"):
        save_base(model, tmp_path / "tuned")


def test_a_merged_adapter_and_tensors_out_of_use_are_saved_as_they_are(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "mine")
    want = outputs(model)
    merge(model, "mine")
    save(model, "mine", tmp_path / "a")
    again = zoo.tiny("llama")
    load(again, tmp_path / "a")
    assert torch.equal(outputs(again), want)
    tuned = zoo.tiny("llama")
    cases.move(attach(tuned, TopLayers(k=1), "top"))
    want = outputs(tuned)
    with use(tuned, None):
        save(tuned, "top", tmp_path / "b")
    again = zoo.tiny("llama")
    load(again, tmp_path / "b")
    assert torch.equal(outputs(again), want)


def test_where_there_is_no_adapter_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder"):
        locate(tmp_path / "nothing" / "here" / "at-all")
    with pytest.raises(BadInput, match="Connect"):
        locate("nobody/has-this-adapter")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match=r"notes\.txt"):
        load(zoo.tiny("llama"), tmp_path)


def test_what_a_folder_could_not_describe_is_refused(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    attach(layers, LoRA(rank=2, sites="*"), "a")
    with pytest.raises(Refused, match="Sequential has no configuration"):
        save(layers, "a", tmp_path / "a")
    with torch.device("meta"):
        model = type(zoo.tiny("llama"))(zoo.tiny("llama").config)
    attach(model, LoRA(rank=2), "a")
    with pytest.raises(Refused, match="'a' is on the meta device"):
        save(model, "a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_without_its_head_what_acts_at_one_is_loaded(tmp_path: Path) -> None:
    model, other = (zoo.tiny("bert", "classification") for _ in range(2))
    cases.move(attach(model, LoRA(rank=2, sites="q head"), "mine"))
    save(model, "mine", tmp_path / "mine")
    load(other, tmp_path / "mine", head=False)
    assert torch.equal(outputs(other), outputs(model))


@pytest.mark.parametrize(("places", "found"), [
    (["runs/monday/adapter", "runs/tuesday/adapter"], ["monday", "tuesday"]),
    (["x/a-2", "y/a", "z/a"], ["a-2-1", "a-2", "a-3"]),
    (["x/taken", "y/b"], ["taken-1", "b-2"]),
])  # fmt: skip
def test_names_of_folders_differ(places: list[str], found: list[str]) -> None:
    assert names([Path("/", place) for place in places], "taken") == found
