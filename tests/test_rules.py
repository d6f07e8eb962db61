"""The rules that matter, as tests over the syntax tree: layout, imports, safety, words."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import graft
from graft import catalogue, verbs
from graft.method import find
from graft.options.fields import fields_of

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "graft"
FILES = sorted(SOURCE.rglob("*.py"))

# Imports go one way: a file may import from lines above its own, and from its own folder.
ORDER = [
    ["errors"],
    ["limits"],
    ["bases", "catalogue", "files", "memory", "moment", "progress", "values"],
    ["anatomy", "statistics"],
    ["part"],
    ["method"],
    ["composition", "decomposed", "kronecker", "sparse", "spelling"],
    ["hosts"],
    ["methods", "attach"],
    ["drawing"],
    ["portrait"],
    ["checkpoint"],
    ["data"],
    ["loading", "titles"],
    ["metrics", "decode", "pretraining"],
    ["scoring"],
    ["training"],
    ["transfer"],
    ["page"],
    ["tournament"],
    ["verbs"],
    ["options"],
    ["cli"],
    ["__main__"],
]
LAYER = {name: height for height, names in enumerate(ORDER) for name in names}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def place(path: Path) -> str:
    """The first name below graft: `attach` for attach/hooks.py."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def nodes(path: Path) -> Iterator[ast.AST]:
    """All nodes that exist at run time: without blocks for the type checker."""
    pending: list[ast.AST] = [tree(path)]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def imports(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Every imported module, `from graft import files` as `graft.files`."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where(path, node)}: write the whole name instead of dots"
            module = node.module or ""
            names = [f"graft.{alias.name}" for alias in node.names] if module == "graft" else [module]
            yield from ((node, name) for name in names)


def docstrings(path: Path) -> set[int]:
    """The ids of the constants that are docstrings."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree(path)) if isinstance(node, owners) and node.body]
    return {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}


def test_imports_go_one_way() -> None:
    wrong = []
    for path in FILES:
        here = place(path)
        if path == SOURCE / "__init__.py":
            continue  # the public vocabulary: names are looked up when they are used
        if here not in LAYER:
            wrong.append(f"{path.relative_to(ROOT)}: give {here} a place in ORDER")
            continue
        for node, name in imports(path):
            there = name.split(".")[1] if name.startswith("graft.") else here
            if there in LAYER and there != here and LAYER[there] >= LAYER[here]:
                wrong.append(f"{where(path, node)}: {here} must not import {there}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", catalogue.methods())
def test_a_method_imports_the_contract_and_nothing_else(name: str) -> None:
    path = SOURCE / "methods" / f"{name}.py"
    # A hybrid is made of other methods; it alone may import them, as what says in `methods` that it is a sum of them.
    summed = any(isinstance(node, ast.FunctionDef) and node.name == "methods" for node in ast.walk(tree(path)))
    hybrid = summed or find(name).family == "hybrid"
    shared = ("anatomy", "composition", "decomposed", "errors", "hosts", "kronecker", "method", "sparse", "spelling")
    allowed = {f"graft.{each}" for each in shared} | ({"graft.methods"} if hybrid else set())
    for node, module in imports(path):
        top = ".".join(module.split(".")[:2]) if module.startswith("graft") else module.split(".")[0]
        assert top in allowed | {"torch"} | sys.stdlib_module_names, f"{where(path, node)}: imports {module}"


def test_the_engine_knows_no_method_and_no_model_type() -> None:
    methods = {name.replace("_", "") for name in catalogue.methods()} | {"modeltype"}
    wrong = []
    for path in FILES:
        if place(path) not in ("attach", "anatomy", "method"):
            continue
        ignored = docstrings(path)
        for node in ast.walk(tree(path)):
            words: list[str] = []
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in ignored:
                words = re.findall(r"\w+", node.value)
            elif isinstance(node, ast.Name | ast.Attribute | ast.FunctionDef | ast.ClassDef | ast.arg | ast.alias):
                key = {ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg"}.get(type(node), "name")
                words = getattr(node, key).split(".")
            wrong += [f"{where(path, node)}: {w}" for w in words if w.lower().replace("_", "") in methods]
    assert not wrong, "\n".join(wrong)


def test_hooks_are_registered_in_attach_only() -> None:
    wrong = [
        where(path, node)
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and re.fullmatch(r"register_\w*hook", node.attr) and place(path) != "attach"
    ]
    assert not wrong, "\n".join(wrong)


def test_files_are_short() -> None:
    lines = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {path: count for path, count in lines.items() if count > 400}
    assert sorted(lines.values())[len(lines) // 2] < 150


def test_what_has_a_name_has_a_file() -> None:
    nameless = {"util", "utils", "common", "core", "base", "misc", "helper", "helpers"}
    assert not [
        path for path in FILES if nameless & {part.removesuffix(".py") for part in path.relative_to(SOURCE).parts}
    ]


def test_every_public_thing_has_a_docstring() -> None:
    # What an override does is said once, by the class that declares it.
    contract = {
        item.name
        for path in FILES
        for node in tree(path).body
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.FunctionDef) and ast.get_docstring(item)
    }
    wrong = []
    for path in FILES:
        if not ast.get_docstring(tree(path)):
            wrong.append(f"{where(path, tree(path))}: the file")
        for node in tree(path).body:
            members = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else []
            for item in [node, *members]:
                named = isinstance(item, ast.FunctionDef | ast.ClassDef) and not item.name.startswith("_")
                if named and not ast.get_docstring(item) and not (item in members and item.name in contract):
                    wrong.append(f"{where(path, item)}: {item.name}")
    assert not wrong, "\n".join(wrong)


def test_nothing_unsafe_is_called() -> None:
    pickles = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    calls = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "torch.save", "os.system"}
    keywords = {"shell", "allow_pickle", "trust_remote_code"}
    wrong = []
    for path in FILES:
        wrong += [f"{where(path, node)}: {name}" for node, name in imports(path) if name.split(".")[0] in pickles]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                given = {k.arg for k in node.keywords if isinstance(k.value, ast.Constant) and k.value.value is True}
                used = {ast.unparse(node.func)} & calls | given & keywords
                wrong += [f"{where(path, node)}: {name}" for name in used]
    assert not wrong, "\n".join(wrong)


def test_public_names_are_sorted_and_exist() -> None:
    assert graft.__all__ == sorted(set(graft.__all__))
    for path in FILES:
        for node in tree(path).body:
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "__all__"
                and "sorted" not in ast.unparse(node)
            ):
                names = ast.literal_eval(node.value)
                assert names == sorted(names), where(path, node)
    assert [name for name in graft.__all__ if getattr(graft, name) is None] == []


@pytest.mark.parametrize("name", catalogue.verbs())
def test_every_option_of_a_verb_has_help_and_a_free_name(name: str) -> None:
    fields = fields_of(verbs.module(name).Options)  # raises for an option without help
    assert all(field.help.strip() for field in fields)
    assert not {"json", "debug", "help", "version"} & {field.name for field in fields}
    assert catalogue.verbs()[name].summary


@pytest.mark.parametrize("name", catalogue.methods())
def test_every_option_of_a_method_has_help(name: str) -> None:
    assert all(field.help.strip() for field in fields_of(getattr(graft, catalogue.methods()[name].class_name)))
    assert catalogue.methods()[name].summary


def test_the_command_line_imports_nothing_heavy() -> None:
    lines = ["import sys, graft, graft.cli, graft.options.command"]
    lines += [f"import graft.verbs.{name}" for name in catalogue.verbs()]
    lines += ["heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'scipy', 'pandas', 'numpy', 'pyarrow'}"]
    lines += ["print(sorted(heavy & set(sys.modules)))"]
    seen = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_the_readme_maps_the_tree() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## Map\n+```\n(.*?)```", text, re.DOTALL)
    assert block, "README.md has no map: a fenced block under the heading `## Map`"
    named = {line.split()[0].rstrip("/") for line in block[1].splitlines() if line.startswith("  ")}
    here = {path.name for path in SOURCE.iterdir() if path.name not in ("__pycache__", "__main__.py", "py.typed")}
    assert named == here, f"not in the map: {sorted(here - named)}; not in the tree: {sorted(named - here)}"
    top = {line.split()[0].rstrip("/") for line in block[1].splitlines() if line.strip() and line[0] != " "}
    assert not [name for name in top if not (ROOT / name).exists()]


def test_every_import_is_a_stated_requirement() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = [*project["dependencies"], *(p for extra in project["optional-dependencies"].values() for p in extra)]
    names = {re.split(r"[^\w-]", line)[0].lower().replace("-", "_") for line in stated}
    names |= {"sklearn", "yaml"}  # scikit-learn and pyyaml are imported by other names
    wrong = [
        f"{where(path, node)}: {name}"
        for path in FILES
        for node, name in imports(path)
        if name.split(".")[0] not in names | sys.stdlib_module_names | {"graft"}
    ]
    assert not wrong, "\n".join(wrong)
