"""The gradient of a model's loss by whole matrices of the base, for methods that choose by it what to train."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from graft.anatomy.site import Site


@contextmanager
def differentiable(model: nn.Module, sites: Sequence[Site], training: bool) -> Iterator[None]:
    """Within the `with`, the loss can be derived by the sites' matrices, twice too; `training`: with dropout."""
    tensors, mode = [getattr(site.module, site.parameter) for site in sites], model.training
    needed = [tensor.requires_grad for tensor in tensors]
    model.train(training)
    try:
        for tensor in tensors:
            tensor.requires_grad_(True)
        # Fused attention has a first derivative only.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for tensor, before in zip(tensors, needed, strict=True):
            tensor.requires_grad_(before)
        model.train(mode)


def derivatives(value: Tensor, sites: Sequence[Site], twice: bool = False, keep: bool = False) -> list[Tensor]:
    """The derivative of a scalar by each site's matrix, (*batch, out, in), in fp32.

    `twice`: it is to be derived itself; `keep`: the graph is needed again, which `twice` implies.
    """
    tensors = [getattr(site.module, site.parameter) for site in sites]
    found = torch.autograd.grad(
        value, tensors, retain_graph=keep or twice, create_graph=twice, allow_unused=True, materialize_grads=True
    )
    return [site.share(site.parameter, gradient).float() for site, gradient in zip(sites, found, strict=True)]


def largest(scores: Sequence[Tensor], entries: int) -> list[Tensor]:
    """The places of the `entries` largest scores of all tensors together, by tensor, in each tensor flattened."""
    ranked = torch.cat([score.flatten() for score in scores]).topk(entries).indices.sort().values
    ends = torch.tensor([score.numel() for score in scores]).cumsum(0).to(ranked.device)
    bounds = torch.searchsorted(ranked, ends).tolist()
    starts = [0, *bounds[:-1]]
    return [
        ranked[start:stop] - (end - score.numel())
        for start, stop, end, score in zip(starts, bounds, ends.tolist(), scores, strict=True)
    ]
