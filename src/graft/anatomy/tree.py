"""Showing a model: its module tree with equal neighbors folded, and lists of layers as ranges."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Node:
    """One module of the tree: its name, class, own parameters and mark, and the modules in it."""

    name: str
    kind: str = ""
    shapes: str = ""
    mark: str = ""
    children: list["Node"] = field(default_factory=list)
    count: int = 1

    def form(self) -> tuple[object, ...]:
        """Everything but the name: equal forms fold into one line."""
        return (self.kind, self.shapes, self.mark, tuple((child.name, child.form()) for child in self.children))

    def holds(self) -> bool:
        """Whether anything below has parameters or a mark; what does not (dropout, activations) is left out."""
        return bool(self.shapes or self.mark) or any(child.holds() for child in self.children)


def tree(modules: Sequence[tuple[str, str, str]], root: str = "", marks: Mapping[str, str] | None = None) -> str:
    """The modules at and below `root`, given as (path, class, shapes) in model order, one to a line, with marks."""
    lines: list[str] = []
    top = _build(modules, root, marks or {})
    _fold(top)
    _print(top, 0, lines)
    return "\n".join(lines)


def _build(modules: Sequence[tuple[str, str, str]], root: str, marks: Mapping[str, str]) -> Node:
    nodes: dict[str, Node] = {}
    for path, kind, shapes in modules:
        if path != root and root and not path.startswith(f"{root}."):
            continue
        home, _, name = path.rpartition(".")
        node = nodes[path] = Node(path if path == root else name, kind, shapes, marks.get(path, ""))
        if path != root and (above := nodes.get(home)) is not None:
            above.children.append(node)
    return nodes[root]


def _fold(node: Node) -> None:
    """Fold runs of numbered children of one form, from the leaves up."""
    kept: list[Node] = []
    for child in [child for child in node.children if child.holds()]:
        _fold(child)
        last = kept[-1] if kept else None
        numbered = last is not None and child.name.isdigit() and last.name.partition("-")[0].isdigit()
        if last is not None and numbered and last.form() == child.form():
            last.count += 1
            last.name = f"{last.name.partition('-')[0]}-{child.name}"
        else:
            kept.append(child)
    node.children = kept


def _print(node: Node, depth: int, lines: list[str]) -> None:
    times = f" ×{node.count}" if node.count > 1 else ""
    label = f"{node.name}{times}: {node.kind}" if node.name else node.kind
    shapes = f" ({node.shapes})" if node.shapes else ""
    mark = f"  ← {node.mark}" if node.mark else ""
    lines.append(f"{'  ' * depth}{label}{shapes}{mark}")
    for child in node.children:
        _print(child, depth + 1, lines)


def ranges(layers: Iterable[int]) -> str:
    """Layer numbers as the expression language writes them: "0-3 5 7-8"."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
