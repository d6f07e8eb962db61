"""A study to train on: a tiny base on disk with a task and its features, loaded anew for every test."""

from collections.abc import Callable
from pathlib import Path

import pytest

import small
from graft.training.tuning import Study


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with bases and rows, made once."""
    folder = tmp_path_factory.mktemp("small")
    for kind in ("bert", "llama", "t5"):
        small.base(folder, kind)
    small.classes(folder)
    small.answers(folder)
    return folder


@pytest.fixture
def study(home: Path) -> Callable[..., Study]:
    """`study("bert", "classes")`: the same model, bit for bit, every time; `still`: without dropout."""

    return lambda *names, **more: small.study_of(home, *names, **more)
