"""Files that lie: each gives one clear error, reads no tensor and leaves the model alone."""

import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import cases
import zoo
from graft.attach import grafted
from graft.checkpoint import load, save
from graft.checkpoint.safe import read_header, read_tensors
from graft.errors import BadInput, GraftError


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "mine")
    return save(model, "mine", tmp_path_factory.mktemp("good") / "adapter")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    for name in ("graft.json", "adapter.safetensors", "adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).write_bytes((good / name).read_bytes())
    return tmp_path / "adapter"


def packed(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def tensor(dtype: Any = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


BAD = {
    "empty": (b"", "too few"),
    "short": (b"\x01\x02", "too few"),
    "header longer than the file": (struct.pack("<Q", 2**62) + b"{}", "cut off"),
    "no JSON": (packed(b"not json at all"), "not JSON"),
    "a list": (packed([1, 2]), "JSON object"),
    "deep": (packed(b"[" * 100_000), "not JSON"),
    "huge shape": (packed({"x": tensor(shape=(2**40, 2**20))}, bytes(16)), "is given 16 bytes"),
    "shape that overflows": (packed({"x": tensor(shape=(2**62, 4))}, bytes(16)), "is given 16 bytes"),
    "negative": (packed({"x": tensor(shape=(-2, -2))}, bytes(16)), "impossible shape"),
    "shape of text": (packed({"x": tensor(shape=("2", "2"))}, bytes(16)), "impossible shape"),
    "many axes": (packed({"x": tensor(shape=(1,) * 40, offsets=(0, 4))}, bytes(4)), "impossible shape"),
    "offsets out": (packed({"x": tensor(offsets=(16, 32))}, bytes(16)), "begins at byte 16"),
    "overlap": (packed({"x": tensor(), "y": tensor()}, bytes(16)), "begins at byte 0"),
    "bytes over": (packed({"x": tensor()}, bytes(20)), "added to"),
    "bytes short": (packed({"x": tensor()}, bytes(12)), "cut off"),
    "type": (packed({"x": tensor(dtype="F8_E9M9")}, bytes(16)), "of type"),
    "path": (packed({"../../etc/cron.d/x": tensor()}, bytes(16)), "no name"),
    "absolute path": (packed({"/etc/passwd": tensor()}, bytes(16)), "no name"),
    "windows path": (packed({"..\\x": tensor()}, bytes(16)), "no name"),
    "newline": (packed({"x\nTraceback": tensor()}, bytes(16)), "no name"),
    "twice": (packed(b'{"x":{},"x":{}}'), "stands twice"),
    "more said": (packed({"x": tensor() | {"code": "1"}}, bytes(16)), "not described"),
    "metadata": (packed({"__metadata__": {"a": {"b": 1}}, "x": tensor()}, bytes(16)), "metadata"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "pickle": (pickle.dumps({"x": [1.0] * 100}), "pickle"),
    "zip": (b"PK\x03\x04" + bytes(100), "pickle"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_lies_is_refused_without_reading_a_tensor(kind: str, folder: Path) -> None:
    data, said = BAD[kind]
    (folder / "adapter.safetensors").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(BadInput, match=said) as error:
        read_header(folder / "adapter.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000 and len(str(error.value)) < 600 and "\n" not in str(error.value)
    model = zoo.tiny("llama")
    with pytest.raises(BadInput, match=said):
        load(model, folder)
    assert grafted(model) is None


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_whose_length_looks_like_a_pickle_is_read(length: int, tmp_path: Path) -> None:
    raw = json.dumps({"x": tensor()}).encode()
    (tmp_path / "x.safetensors").write_bytes(packed(raw.ljust(length), bytes(16)))
    assert list(read_header(tmp_path / "x.safetensors")) == ["x"]


def test_the_loader_of_pickles_is_never_reached(folder: Path) -> None:
    ran = folder / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(ran),)

    for name in ("adapter_model.bin", "adapter.bin"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    for gone in ("adapter.safetensors", "adapter_model.safetensors"):
        (folder / gone).unlink()
    with pytest.raises(BadInput, match=r"adapter_model\.bin, which could run any program"):
        load(zoo.tiny("llama"), folder)
    (folder / "graft.json").unlink()
    with pytest.raises(BadInput, match="safe_serialization"):
        load(zoo.tiny("llama"), folder)
    assert not ran.exists()


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    for name in ("adapter.safetensors", "graft.json"):
        outside = tmp_path / f"outside-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)
        with pytest.raises(BadInput, match="outside the adapter's folder"):
            load(zoo.tiny("llama"), folder)
        (folder / name).unlink()
        outside.rename(folder / name)
    load(zoo.tiny("llama"), folder)


def test_links_of_the_hub_cache_are(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "repo" / "snapshots" / "abc", tmp_path / "repo" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("adapter.safetensors", "graft.json"):
        (folder / name).rename(blobs / name)
        (snapshot / name).symlink_to(blobs / name)
    load(zoo.tiny("llama"), snapshot)


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"[]", b"[" * 100_000, b'{"schema": 1, "schema": 1}', b'{"a": nul}']
)
@pytest.mark.parametrize("name", ["graft.json", "adapter_config.json"])
def test_a_description_that_is_none_is_refused(text: bytes, name: str, folder: Path) -> None:
    (folder / name).write_bytes(text)
    if name == "adapter_config.json":
        (folder / "graft.json").unlink()
    with pytest.raises(BadInput, match=name):
        load(zoo.tiny("llama"), folder)


def test_a_description_of_absurd_size_is_not_read(folder: Path) -> None:
    with (folder / "graft.json").open("wb") as file:
        file.truncate(2**34)  # sparse: takes no space
    with pytest.raises(BadInput, match="is not read"):
        load(zoo.tiny("llama"), folder)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_is_read_as_it_is_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a.b": torch.ones(2, 3), "c": torch.zeros(4, dtype=torch.int64)}, path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if what == "flip":
            raw[at] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del raw[at:]
            if not raw:
                break
        else:
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    path.write_bytes(raw)
    try:
        header = read_header(path)
    except BadInput:
        return
    try:
        tensors = read_tensors(path, header)
    except BadInput as error:
        assert "NaN" in str(error)
        return
    assert {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} == {
        name: (entry.dtype, entry.shape) for name, entry in header.items()
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_description_is_followed_or_refused(data: st.DataObject, folder: Path, good: Path) -> None:
    name = data.draw(st.sampled_from(["graft.json", "adapter_config.json"]))
    found = json.loads((good / name).read_text())
    place = found["method"] if name == "graft.json" and data.draw(st.booleans()) else found
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    (folder / name).write_text(json.dumps(found))
    (folder / "graft.json").unlink(missing_ok=True) if name == "adapter_config.json" else None
    model = zoo.tiny("llama")
    try:
        load(model, folder)
    except GraftError as error:
        assert str(error) and grafted(model) is None
    finally:
        (folder / "graft.json").write_bytes((good / "graft.json").read_bytes())
        (folder / "adapter_config.json").write_bytes((good / "adapter_config.json").read_bytes())
