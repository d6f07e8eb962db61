"""One pass over a model: every module by path, and what each leaf is (linear, embedding, norm)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Kind = Literal["linear", "embedding", "norm"]


@dataclass(frozen=True)
class Leaf:
    """A module a site can stand on by itself, with its sizes."""

    path: str
    kind: Kind
    inputs: int
    outputs: int
    transposed: bool = False


def leaf(path: str, module: nn.Module) -> Leaf | None:
    """What `module` is, or None where it is no linear, embedding or norm. Quantized linears count as linears."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return Leaf(path, "linear", module.in_features, module.out_features)
    if isinstance(module, Conv1D):
        return Leaf(path, "linear", module.nx, module.nf, transposed=True)
    if isinstance(module, nn.Embedding):
        return Leaf(path, "embedding", module.num_embeddings, module.embedding_dim, transposed=True)
    gain, kind = module._parameters.get("weight"), type(module).__name__
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) or "LayerNorm" in kind or "RMSNorm" in kind:
        return Leaf(path, "norm", gain.numel(), gain.numel()) if gain is not None else None
    inputs, outputs = (vars(module).get(name) for name in ("in_features", "out_features"))
    if isinstance(inputs, int) and isinstance(outputs, int) and not module._modules:
        return Leaf(path, "linear", inputs, outputs)
    return None


class Survey:
    """Modules, leaves and children of a model by path; the root's path is empty. Holds live modules: not kept."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = dict(model.named_modules())
        found = (leaf(path, module) for path, module in self.modules.items())
        self.leaves = {each.path: each for each in found if each is not None}
        self.order = {path: index for index, path in enumerate(self.modules)}

    def child(self, path: str, names: tuple[str, ...]) -> Leaf | None:
        """The first of `names` that is a linear child of the module at `path`; a name may have dots."""
        for name in names:
            found = self.leaves.get(join(path, name))
            if found is not None and found.kind == "linear":
                return found
        return None

    def under(self, path: str) -> Iterator[str]:
        """Paths below `path`, itself excluded, in model order."""
        prefix = f"{path}." if path else ""
        return (other for other in self.modules if other.startswith(prefix) and other != path)

    def leaves_under(self, path: str, kind: Kind) -> list[Leaf]:
        """Leaves of one kind at or below `path`, in model order."""
        return [each for each in self.leaves.values() if each.kind == kind and inside(each.path, path)]

    def config(self, path: str) -> Any:
        """The configuration that rules the module at `path`: its own or that of the nearest module above; or None."""
        while True:
            found = vars(self.modules[path]).get("config")
            if found is not None or not path:
                return found
            path = parent(path)


def join(path: str, name: str) -> str:
    """`name` below `path`."""
    return f"{path}.{name}" if path else name


def parent(path: str) -> str:
    """The path of the module that holds the one at `path`."""
    return path.rpartition(".")[0]


def inside(path: str, outer: str) -> bool:
    """Whether `path` is `outer` or below it."""
    return not outer or path == outer or path.startswith(f"{outer}.")


def relative(path: str, outer: str) -> str:
    """`path` as seen from `outer`."""
    return path.removeprefix(outer).removeprefix(".") if outer else path


def meeting(first: str, second: str) -> str:
    """The deepest module that holds both."""
    shared = []
    for one, other in zip(first.split("."), second.split("."), strict=False):
        if one != other:
            break
        shared.append(one)
    return ".".join(shared)
