"""Selecting sites: a site expression applied to the anatomy of a model, with what was asked and does not exist."""

import difflib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from graft.anatomy.anatomy import Anatomy
from graft.anatomy.expression import Clause, Word, fault, parse
from graft.anatomy.names import ROUTERS
from graft.anatomy.site import LINEAR_ROLES, PAIR_ROLES, ROLES, Site, Stack
from graft.anatomy.survey import Leaf, inside, relative
from graft.anatomy.tree import ranges, tree
from graft.errors import BadInput, Refused

ALL_LINEAR = "all-linear"
ATTENTION_ROLES = ("q", "k", "v", "o", "attention")
OUTSIDE_LAYERS = ("embed", "head", "stack")


@dataclass(frozen=True)
class Missing:
    """A role that was asked for in some layers of a stack and does not exist in all of them."""

    word: str
    stack: str
    asked: tuple[int, ...]
    layers: tuple[int, ...]
    tree: str

    def __str__(self) -> str:
        there = [layer for layer in self.asked if layer not in self.layers]
        only = f" Only layers {ranges(there)} have it: write {self.word!r} @ {ranges(there)}." if there else ""
        return (
            f"asked {self.word!r} in layers {ranges(self.asked)} of {self.stack}; missing in {ranges(self.layers)}."
            f"{only} Layer {self.layers[0]}:\n{self.tree}"
        )


@dataclass(frozen=True)
class Selection:
    """The sites an expression reaches, in model order, and what it asked for in vain."""

    sites: tuple[Site, ...]
    missing: tuple[Missing, ...] = ()

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def asked(self) -> int:
        """How many sites were asked for; `len` says how many were reached."""
        return len(self.sites) + sum(len(each.layers) for each in self.missing)


def select(anatomy: Anatomy, expression: str) -> Selection:
    """The sites of a model that an expression names, without duplicates, in model order, unbound.

    A role that some layers lack is reported in `missing`. Raises BadInput for words, stacks and layers the model does
    not have, and where nothing at all matches; Refused for `@` on a stack whose layers share one module.
    """
    chosen: dict[str, Site] = {}
    missing: dict[tuple[str, str, tuple[int, ...]], Missing] = {}
    for clause in parse(expression):
        for word in clause.words:
            sites, lacking = _Asked(anatomy, expression, clause, word).answer()
            chosen |= {site.name: site for site in sites}
            missing |= {(each.word, each.stack, each.layers): each for each in lacking}
    return Selection(_ordered(anatomy, list(chosen.values())), tuple(missing.values()))


def _ordered(anatomy: Anatomy, sites: list[Site]) -> tuple[Site, ...]:
    """Sites in model order, without shares of a linear that is itself selected whole."""
    whole = {site.path for site in sites if site.role == "module"}
    kept = [site for site in sites if site.role == "module" or site.path not in whole or site.entry is not None]
    place = {path: i for i, (path, _, _) in enumerate(anatomy.tree)}
    rank = {site.name: i for i, site in enumerate(anatomy.sites)}
    return tuple(sorted(kept, key=lambda site: (place[site.start], rank.get(site.name, len(rank)))))


@dataclass(frozen=True)
class _Asked:
    """One word of one clause, asked of one model."""

    anatomy: Anatomy
    expression: str
    clause: Clause
    word: Word

    def answer(self) -> tuple[list[Site], list[Missing]]:
        stacks, kind = self._where()
        text = self.word.text
        by_role = text in ROLES or text == ALL_LINEAR
        found = self._by_role() if by_role else self._by_path()
        limited, names = bool(self.clause.where), {stack.name for stack in stacks}
        found = [site for site in found if not limited or site.stack in names]
        if kind is not None:
            found = [site for site in found if site.role in ATTENTION_ROLES and site.cross == (kind == "cross")]
        if not found:
            raise self._nothing(stacks, kind)
        names = {site.stack for site in found}
        layers = {stack.name: self._layers(stack) for stack in stacks if stack.name in names}
        missing = self._missing(stacks, layers, found) if by_role else []
        if self.clause.layers is not None:
            found = [site for site in found if site.layer is not None and site.layer in (layers.get(site.stack) or ())]
            if not found and not missing:
                raise self._fault(f"{text!r} is in none of these layers", "Widen the layers after '@'.")
        return found, missing

    def _fault(self, what: str, remedy: str, at: int | None = None) -> BadInput:
        return fault(self.expression, self.word.start if at is None else at, what, remedy)

    def _where(self) -> tuple[list[Stack], str | None]:
        """The stacks the clause speaks of, and "self" or "cross" where it says so."""
        known = [stack.name for stack in self.anatomy.stacks]
        named, kind = [], None
        for word in self.clause.where:
            if word.text in ("self", "cross"):
                kind = word.text
            elif word.text in known:
                named.append(word.text)
            else:
                remedy = f"This model has: {', '.join(known)}. Write one of them, self or cross before ':'."
                raise self._fault(f"there is no stack {word.text!r}", remedy, word.start)
        return [stack for stack in self.anatomy.stacks if not named or stack.name in named], kind

    def _layers(self, stack: Stack) -> tuple[int, ...]:
        """The layers of `stack` the clause speaks of: all, or those after "@"."""
        layers, total = self.clause.layers, len(stack.layers)
        if layers is None:
            return tuple(range(total))
        if stack.repeats > 1:
            raise Refused(
                f"{self.expression!r}: the layers of {stack.name} are one module that runs {stack.repeats} times "
                f"({stack.layers[0]}), so '@' cannot choose among them. Remove '@ ...'."
            )
        if (chosen := layers.of(total)) is None:
            remedy = f"{stack.name} has {total} layers, 0-{total - 1}."
            if len(self.anatomy.stacks) > 1:
                remedy += f' Name one stack to choose its layers alone, as in "{stack.name}: {self.word.text} @ ...".'
            raise self._fault(f"{stack.name} has no such layers", remedy, layers.start)
        return chosen

    def _by_role(self) -> list[Site]:
        text = self.word.text
        if self.clause.layers is not None and text in OUTSIDE_LAYERS:
            raise self._fault(f"{text!r} is in no layer", "Write it in a clause of its own, without '@'.")
        if text != ALL_LINEAR:
            return [site for site in self.anatomy.sites if site.role == text]
        # Fused experts are tensors, not linears: `gate up down` names them.
        sites = [site for site in self.anatomy.sites if site.role in LINEAR_ROLES and not site.batch]
        known = {site.path for site in self.anatomy.sites if site.role in (*LINEAR_ROLES, "head")}
        for leaf in self.anatomy.leaves:
            own = leaf.kind == "linear" and leaf.path not in known and leaf.path.rpartition(".")[2] not in ROUTERS
            if own and (site := module_site(self.anatomy, leaf)).layer is not None:
                sites.append(site)
        return sites

    def _by_path(self) -> list[Site]:
        """Sites by their own name, an exact module path, or a glob over module paths."""
        text = self.word.text
        if named := [site for site in self.anatomy.sites if site.name == text]:
            return named
        leaves = [leaf for leaf in self.anatomy.leaves if leaf.path == text]
        if not leaves and set(text) & set("*?["):
            leaves = [leaf for leaf in self.anatomy.leaves if fnmatch.fnmatchcase(leaf.path, text)]
        elif not leaves and (kinds := [kind for path, kind, _ in self.anatomy.tree if path == text]):
            remedy = f'A path names a linear, an embedding or a norm. "{text}.*" names those inside:\n'
            raise self._fault(f"{text!r} is a {kinds[0]}", remedy + tree(self.anatomy.tree, text))
        if not leaves:
            raise self._unknown()
        plain = {s.path: s for s in self.anatomy.sites if s.rows is None and not s.batch and s.role not in PAIR_ROLES}
        return [plain.get(leaf.path) or module_site(self.anatomy, leaf) for leaf in leaves]

    def _missing(self, stacks: list[Stack], layers: dict[str, tuple[int, ...]], found: list[Site]) -> list[Missing]:
        """What the stacks that have the role at all lack of it."""
        lacking = []
        for stack in stacks:
            have = {site.layer for site in found if site.stack == stack.name and site.layer is not None}
            none = tuple(layer for layer in layers.get(stack.name, ()) if layer not in have)
            if have and none:
                shown = tree(self.anatomy.tree, stack.layers[none[0]])
                lacking.append(Missing(self._said(), stack.name, layers[stack.name], none, shown))
        return lacking

    def _said(self) -> str:
        where = " ".join(each.text for each in self.clause.where)
        return f"{where}: {self.word.text}" if where else self.word.text

    def _roles(self) -> str:
        roles = self.anatomy.roles()
        return " ".join(role for role in ROLES if role in roles) or "none that graft recognizes"

    def _unknown(self) -> BadInput:
        text = self.word.text
        has = f"Roles of this model: {self._roles()}; also {ALL_LINEAR}, and globs over these modules:\n"
        shown = has + tree(self.anatomy.tree)
        if set(text) & set("*?["):
            return self._fault(f"no linear, embedding or norm matches {text!r}", shown)
        near = difflib.get_close_matches(text, [*ROLES, ALL_LINEAR, *(leaf.path for leaf in self.anatomy.leaves)], n=1)
        return self._fault(f"unknown word {text!r}", (f"Did you mean {near[0]!r}? " if near else "") + shown)

    def _nothing(self, stacks: list[Stack], kind: str | None) -> BadInput:
        text = self.word.text
        named = [stack.name for stack in stacks] if len(stacks) < len(self.anatomy.stacks) else ["this model"]
        of = f" the {kind}-attention of" if kind else ""
        remedy = f"Roles of this model: {self._roles()}. For modules outside them write globs over their paths:\n"
        return self._fault(f"there is no {text!r} in{of} {' and '.join(named)}", remedy + tree(self.anatomy.tree))


def module_site(anatomy: Anatomy, leaf: Leaf) -> Site:
    """A site for a module outside the roles: named by its path in its layer, else in its stack, else in the model."""

    def made(where: str, stack: Stack | None, seen: str, layer: int | None = None) -> Site:
        return Site(
            f"{where}module.{seen or 'itself'}", "module", leaf.path, stack.name if stack else "", layer,
            inputs=leaf.inputs, outputs=leaf.outputs, transposed=leaf.transposed,
            repeats=stack.repeats if stack and layer is not None else 1,
        )  # fmt: skip

    for stack in anatomy.stacks:
        for index, layer in enumerate(stack.layers):
            if inside(leaf.path, layer):
                return made(f"{stack.name}.{index}.", stack, relative(leaf.path, layer), index)
    for stack in anatomy.stacks:
        if inside(leaf.path, stack.path) and stack.path:
            return made(f"{stack.name}.", stack, relative(leaf.path, stack.path))
    return made("", None, leaf.path)
