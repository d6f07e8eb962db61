"""`graft anatomy`: what a model is made of, and what a site expression reaches in it, from the configuration alone."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from graft.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from graft.anatomy import Anatomy


@dataclass(frozen=True)
class Options:
    """Show a model's module tree and the sites methods can act on, from its configuration alone.

    No weights are read or downloaded. With --sites, exits with 1 when the expression asks for a role that some layers
    lack.
    """

    model: Annotated[str, "a folder with config.json, a config.json, or the id of a model on the Hugging Face hub"]
    sites: Annotated[str, 'show what this site expression reaches, such as "q v @ top 4"'] = ""


@dataclass(frozen=True)
class Tower:
    """One stack of layers; `runs` is how often its layers run in one pass (more than 1 where layers are shared)."""

    name: str
    path: str
    layers: int
    runs: int
    width: int
    causal: bool


@dataclass(frozen=True)
class Group:
    """The sites of one role and shape: their number, one site's parameters, and the layers they are in."""

    role: str
    stack: str
    cross: bool
    layers: str
    shape: str
    count: int
    parameters: int


@dataclass(frozen=True)
class Result:
    """The anatomy of one model; `groups` are all its sites, or those an expression reaches."""

    model: str
    parameters: int
    stacks: list[Tower]
    head: list[str]
    tied: list[list[str]]
    sites: str
    groups: list[Group]
    names: list[str]
    missing: list[str]
    tree: str = field(repr=False)

    @property
    def exit_code(self) -> int:
        """1 when the expression asks for what some layers lack."""
        return 1 if self.missing else 0

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    def show(self, console: "Console") -> None:
        """Print the tree with marks, the stacks, and one line per role and shape."""
        from rich.table import Table
        from rich.text import Text

        for line in self.tree.splitlines():
            body, arrow, mark = line.partition("  ← ")
            console.print(Text(body).append(arrow + mark, "bold green"), soft_wrap=True)
        console.print()
        for stack in self.stacks:
            runs = f" that runs {stack.runs} times" if stack.runs > 1 else ""
            kind = "sees only the past" if stack.causal else "sees both sides"
            layers = f"{stack.layers} layer{'s' if stack.layers != 1 else ''}{runs}"
            console.print(Text(stack.name, "bold").append(f"  {layers}, width {stack.width}, {kind}", ""))
        console.print(Text(f"{self.parameters:,} parameters; head: {', '.join(self.head) or 'none'}"))
        for paths in self.tied:
            console.print(Text(f"tied: {' = '.join(paths)}"), soft_wrap=True)
        table = Table("role", "stack", "layers", "shape (out × in)", "sites", "parameters", box=None, pad_edge=False)
        for group in self.groups:
            role = f"{group.role} (cross)" if group.cross else group.role
            size = f"{group.parameters * group.count:,}" if group.parameters else ""
            table.add_row(role, group.stack, group.layers, group.shape, str(group.count), size)
        console.print("", table, "", sep="\n")
        if self.sites:
            console.print(Text(f"{self.sites!r} reaches {len(self.names)} sites"))
        for each in self.missing:
            console.print(Text(each, "yellow"), soft_wrap=True)


def run(options: Options) -> Result:
    """Build the model on `meta`, examine it and apply the expression."""
    from graft import bases
    from graft.anatomy import examine, select, skeleton
    from graft.anatomy.tree import tree

    try:
        model = skeleton(bases.place(options.model))
    except BadInput as error:
        raise BadInput(f"{error}{bases.hint(options.model)}") from error
    anatomy = examine(model)
    selection = select(anatomy, options.sites) if options.sites else None
    chosen = selection.sites if selection else anatomy.sites
    marks: dict[str, list[str]] = {}
    for site in chosen:
        marks.setdefault(site.path, []).append(f"{'cross ' if site.cross else ''}{site.role}")
    return Result(
        model=options.model,
        parameters=sum(p.numel() for p in model.parameters()),
        stacks=[
            Tower(stack.name, stack.path, len(stack.layers), stack.repeats, stack.width, stack.causal)
            for stack in anatomy.stacks
        ],
        head=list(anatomy.head_paths),
        tied=[list(group) for group in anatomy.tied],
        sites=options.sites,
        groups=_groups(anatomy, chosen),
        names=[site.name for site in chosen],
        missing=[str(each) for each in selection.missing] if selection else [],
        tree=tree(anatomy.tree, marks={path: ", ".join(roles) for path, roles in marks.items()}),
    )


def _groups(anatomy: "Anatomy", chosen: tuple[Any, ...]) -> list[Group]:
    from graft.anatomy.site import PAIR_ROLES, ROLES
    from graft.anatomy.tree import ranges

    sorted_by: dict[tuple[Any, ...], list[Any]] = {}
    for site in chosen:
        sizes = () if site.role in PAIR_ROLES else (site.outputs, site.inputs, site.batch)
        sorted_by.setdefault((site.stack, ROLES.index(site.role), site.cross, sizes), []).append(site)
    order = {name: i for i, name in enumerate([*(stack.name for stack in anatomy.stacks), "head", ""])}
    groups = []
    for key in sorted(sorted_by, key=lambda key: (order[key[0]], *key[1:])):
        (stack, role, cross, sizes), sites = key, sorted_by[key]
        layers = ranges({site.layer for site in sites if site.layer is not None})
        outputs, inputs, batch = sizes or (0, 0, ())
        shape, parameters = "", 0
        if ROLES[role] == "norm":
            shape, parameters = str(outputs), outputs
        elif sizes:
            # An embedding's inputs are its entries.
            shape = " × ".join(str(size) for size in (*batch, outputs, inputs))
            parameters = outputs * inputs
            for size in batch:
                parameters *= size
        groups.append(Group(ROLES[role], stack, cross, layers, shape, len(sites), parameters))
    return groups
