"""The card of a trained model: what it is, what it saw, how well it does, and the recipe that makes it again."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def card(name: str, facts: Mapping[str, Any], recipe: Mapping[str, Any], texts: Iterable[Path]) -> str:
    """Markdown for the model folder's README.md.

    facts: an Outcome as a dict. recipe: the options that differ from their defaults. texts: the folders of text; one
    that was gathered (it has a manifest.json) is listed with every package, version and licence.
    """
    manifests = [
        json.loads((text / "manifest.json").read_text()) for text in texts if (text / "manifest.json").is_file()
    ]
    packages = sorted((p for m in manifests for p in m["packages"]), key=lambda p: p["name"].lower())
    return "\n".join([*_head(name, facts), *_scores(facts), *_recipe(recipe), *_packages(packages)]) + "\n"


def _head(name: str, facts: Mapping[str, Any]) -> list[str]:
    return [
        f"# {name}",
        "",
        f"A {facts['model_type']} model of {facts['parameters']:,} parameters with a vocabulary of "
        f"{facts['vocabulary']:,}, trained from nothing by `graft pretrain` (objective: {facts['objective']}).",
        "",
    ]


def _scores(facts: Mapping[str, Any]) -> list[str]:
    epochs = facts["seen_tokens"] / facts["training_tokens"]
    rows = {
        "tokens seen": f"{facts['seen_tokens']:,} ({epochs:.2f} of the {facts['training_tokens']:,} in the text)",
        "optimizer steps": f"{facts['steps']:,}",
        "training time": f"{facts['minutes']:.0f} minutes",
        "held-out loss": f"{facts['loss']:.4f} nats per predicted token (perplexity {facts['perplexity']:.2f})",
    }
    if facts["bits_per_byte"] is not None:
        rows["held-out bits per byte"] = f"{facts['bits_per_byte']:.4f}"
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]


def _recipe(recipe: Mapping[str, Any]) -> list[str]:
    lines = [f"{name}: {json.dumps(value, default=str)}" for name, value in recipe.items()]
    return ["## Recipe", "", "`graft pretrain recipe.yaml` with", "", "```yaml", *lines, "```", ""]


def _packages(packages: list[dict[str, Any]]) -> list[str]:
    if not packages:
        return []
    total = sum(package["bytes"] for package in packages)
    rows = [
        f"| {p['name']} | {p['version']} | {p['licence']} | {p['files']:,} | {p['bytes'] / 1000:,.0f} |"
        for p in packages
    ]
    head = ["| package | version | licence | files | kB |", "|---|---|---|---:|---:|"]
    said = f"Source and documentation of {len(packages)} packages, {total / 1e6:.0f} MB after cleaning:"
    return ["## Training text", "", said, "", *head, *rows, ""]
