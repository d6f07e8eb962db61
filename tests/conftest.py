"""For all tests: no network, one thread, the same random numbers every time. pyproject.toml makes warnings errors."""

import os

# Before anything imports torch or a Hugging Face library; tests run side by side, so one thread each is fastest.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}

import gc
import random
import sys
from collections.abc import Iterator

import hypothesis
import pytest

hypothesis.settings.register_profile("graft", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("graft")


def pytest_collection_finish() -> None:
    """Do not look through the libraries again whenever garbage is collected."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Give every test the same random numbers, whichever ran before it."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    yield
