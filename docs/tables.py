"""Tables inside written pages. `<!-- methods -->` … `<!-- /methods -->` in a page holds what `methods()` here gives."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import graft
from graft import catalogue, portrait
from graft.anatomy import skeleton
from graft.data import tasks as task_files
from graft.data.kinds import KINDS
from graft.data.rows import ALLOWANCES
from graft.errors import GraftError
from graft.page import costs, words
from graft.page.words import NOTHING
from graft.portrait import choosing, written
from graft.verbs.methods import FAMILIES, place

RESULTS = Path(__file__).parent / "results.csv"
SHOWN = ("trainable", "stored_bytes", "training_seconds", "peak_bytes")
STARTS = {"exact": "yes", "near": "nearly", "elsewhere": "no"}
BERT: dict[str, Any] = {"architectures": ["BertForSequenceClassification"]}
LLAMA: dict[str, Any] = {"vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008,
         "num_attention_heads": 32, "architectures": ["LlamaForCausalLM"]}  # fmt: skip


def methods() -> str:
    """Every method by family: what it computes, how it starts, whether it merges, and what it costs on two models."""
    from transformers import BertConfig, LlamaConfig

    sizes = [skeleton(BertConfig(**BERT)), skeleton(LlamaConfig(**LLAMA))]
    entries = [getattr(graft, entry.class_name) for entry in catalogue.own().values()]
    text = ""
    for family in sorted({kind.family for kind in entries}, key=place):
        text += f"\n### {FAMILIES.get(family, family)}\n\n"
        text += "| | computes | starts as the base | merges | learning rate | BERT-base | Llama 7B | stored |\n"
        text += "|---|---|---|---|---|---|---|---|\n"
        for kind in sorted((kind for kind in entries if kind.family == family), key=lambda kind: kind.__name__):
            counts = [portrait.costs(kind(), model) for model in sizes]
            link = f"[{kind.__name__}](reference/methods.md#{kind.slug()})"
            cells = [link, _formula(kind), STARTS[kind().start], _merges(kind), f"{kind().learning_rate:g}"]
            cells += [NOTHING if found.refused else f"{found.trainable:,}" for found in counts]
            stored = counts[1].stored or None
            text += f"| {' | '.join([*cells, costs.cost('stored_bytes').shown(stored)])} |\n"
    return text


def choices() -> str:
    """What is known of when a method is a good choice, with its source."""
    text = "| for | choose | because | says |\n|---|---|---|---|\n"
    for each in choosing.KNOWN:
        named = ", ".join(f"[{_title(name)}](reference/methods.md#{name})" for name in each.methods)
        text += f"| {each.task} | {named or f'what acts in: {each.workspace}'} | {each.said} | {each.source} |\n"
    return text


def kinds() -> str:
    """The kinds of rows: their columns, the task, and other names of the columns."""
    text = "| columns | task | also by these names |\n|---|---|---|\n"
    for kind in KINDS:
        tasks = "refused for now" if kind.tasks == ("preference",) else " or ".join(kind.tasks)
        text += f"| `{kind.name}` | {tasks} | {'; '.join(_aliases(kind.alternatives))} |\n"
    return text


def _aliases(alternatives: Sequence[tuple[tuple[str, str], ...]]) -> list[str]:
    """Other names of columns: by column where each may be named for itself, else the names that go together."""
    rest = list(dict.fromkeys(alternative[:-1] for alternative in alternatives))
    last = list(dict.fromkeys(alternative[-1] for alternative in alternatives))
    if not alternatives[0][1:] or len(rest) * len(last) > len(alternatives):
        own, *others = [",".join(column for _, column in alternative) for alternative in alternatives]
        return [f"{own}: " + ", ".join(f"`{names}`" for names in others)] if others else []
    return [*_aliases(rest), *_aliases([(name,) for name in last])]


def tasks() -> str:
    """Every task: the head that transformers puts on the base, and the metrics."""
    text = "| task | model class | metrics |\n|---|---|---|\n"
    for name in task_files.kinds():
        task = task_files.find(name)
        head = "`" + task.head + "`"
        if name == "generation":
            head += ", or `AutoModelForSeq2SeqLM`"
        text += f"| {name} | {head} | {', '.join(task.metrics)} |\n"
    return text


def allowances() -> str:
    """What can be allowed of what the data gate refuses, and what happens then."""
    text = "| `--allow` | what it does |\n|---|---|\n"
    return text + "".join(f"| `{name}` | {effect} |\n" for name, effect in ALLOWANCES.items())


def results() -> str:
    """What `graft demo` measured, once its results.csv is here; nothing before that."""
    if not RESULTS.exists():
        return ""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    first = lines[0]
    text = (
        f"Measured by `make demo`: the bundled base **{first['model']}** learns to describe functions from "
        f"{int(first['rows_train']):,} of them, and is scored on {first['rows_test']} of the standard library that it "
        "has not seen. One seed, no search, the same seconds of training for each; 95 % intervals.\n\n"
        "| | trainable | stored | training | peak memory | perplexity | ROUGE-L | against the base |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    for line in sorted(lines, key=lambda line: float(line["score"] or "-inf"), reverse=True):
        cells = [costs.cost(key).shown(_number(line[f"cost_{key}"])) for key in SHOWN]
        score, perplexity = (words.number(_number(line[name]), 1) for name in ("score", "metric_perplexity"))
        gain = [_number(line[f"against_reference_{name}"]) for name in ("difference", "low", "high")]
        against = "" if gain[0] is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*gain)
        text += f"| {_title(line['contestant'])} | {' | '.join(cells)} | {perplexity} | {score} | {against} |\n"
    return text


def _number(text: str) -> float | None:
    return float(text) if text else None


def _title(name: str) -> str:
    entry = catalogue.methods().get(name)
    return entry.class_name if entry else name.replace("_", "-")


def _merges(kind: Any) -> str:
    try:
        return portrait.merges(kind())[0]
    except GraftError:
        return NOTHING


def _formula(kind: Any) -> str:
    """The first formula of the method's own file; methods without one say what they do."""
    described = written.description(kind)
    first = next(iter(written.formulas(described)), "")
    said = f"`{re.sub(r'[ ]{2,}', ' ', first)}`" if first else described.partition("\n")[0]
    return said.replace("|", "\\|")


TABLES = {table.__name__: table for table in (methods, choices, kinds, tasks, allowances, results)}
