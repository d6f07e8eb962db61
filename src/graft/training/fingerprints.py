"""Whether training moves anything."""

import torch

from graft.attach import Adapter


class Fingerprints:
    """Sums over the bits of each trainable tensor: enough to tell that one changed, and no copy of any.

    Tensors of a task head count only where the adapter has no others: a head learns by itself.
    """

    def __init__(self, adapter: Adapter) -> None:
        heads = {id(p) for placed in adapter.placed if placed.head for p in placed.part.parameters()}
        trainable = [(name, p) for name, p in adapter.named_parameters() if p.requires_grad]
        self.tensors = dict([(name, p) for name, p in trainable if id(p) not in heads] or trainable)
        self.sums = self._sums()

    def changed(self) -> bool:
        """Whether any tensor is not what it was."""
        return self._sums() != self.sums

    def _sums(self) -> list[int]:
        whole = {4: torch.int32, 2: torch.int16, 8: torch.int64, 1: torch.int8}
        return [
            int(p.detach().contiguous().view(whole[p.element_size()]).sum(dtype=torch.int64))
            for p in self.tensors.values()
        ]
