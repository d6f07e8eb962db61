"""FSDP2 on two processes: a sharded step trains the same adapter as a step on one."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import cases
import zoo
from graft.errors import Refused

NAMES = (
    "lora",
    "dora",
    "ia3",
    "bitfit",
    "houlsby",
    "parallel_adapter",
    "prefix_tuning",
    "prompt_tuning",
    "ladder_side",
    "llama_adapter",
    "p_tuning",
)


def step(name: str, sharded: bool) -> dict[str, torch.Tensor]:
    """The adapter's tensors after one step of SGD on the same batch."""
    model = zoo.tiny("llama", use_cache=False).train()
    adapter, batch = cases.grafted(model, name), zoo.batch(model)
    if sharded:
        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(model)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=1.0)
    zoo.forward(model, batch).square().mean().backward()
    optimizer.step()
    tensors = dict(adapter.named_parameters())
    return {key: (t.full_tensor() if isinstance(t, DTensor) else t).detach() for key, t in tensors.items()}


def work(rank: int, name: str, store: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        torch.manual_seed(0)
        alone = step(name, sharded=False)
        torch.manual_seed(0)
        together = step(name, sharded=True)
        start = {k: v.detach() for k, v in cases.grafted(zoo.tiny("llama"), name).named_parameters()}
        for key, value in alone.items():
            assert torch.allclose(together[key], value, atol=1e-5), key
        assert any(not torch.equal(alone[key], start[key]) for key in alone) or "prompt" in name
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_what_one_does(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (name, str(Path(folder) / "store")), nprocs=2)


def refused(rank: int, store: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        with pytest.raises(Refused, match="cannot train in a sharded model"):
            step("embedding_prompt", sharded=True)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_virtual_tokens_at_layers_are_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(refused, (str(Path(folder) / "store"),), nprocs=2)
