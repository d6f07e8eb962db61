"""One pre-training run from text to a finished folder: what `graft pretrain` does."""

from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from graft.errors import BadInput
from graft.files import writing_folder
from graft.pretraining import heap
from graft.pretraining.batches import Batches, Shape, window_for
from graft.pretraining.card import card
from graft.pretraining.corpus import gather
from graft.pretraining.documents import Documents, Packed, find_documents, pack, read_texts
from graft.pretraining.held_out import HeldOut, measure
from graft.pretraining.loop import Settings, train
from graft.pretraining.model import build, configure, marks_of, probe_prefix, shape_of
from graft.pretraining.progress import Reporter
from graft.pretraining.snapshot import Counters, snapshots
from graft.pretraining.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from graft.verbs.pretrain import Options


@dataclass(frozen=True)
class Outcome:
    """What was trained. loss: nats per held-out predicted token; bits_per_byte: of causal models alone."""

    model: str
    model_type: str
    objective: str
    parameters: int
    vocabulary: int
    training_tokens: int
    seen_tokens: int = 0
    steps: int = 0
    minutes: float = 0.0
    loss: float | None = None
    perplexity: float | None = None
    bits_per_byte: float | None = None


@dataclass(frozen=True)
class Bench:
    """Everything a run works with."""

    tokenizer: Any
    model: PreTrainedModel
    shape: Shape
    packed: Packed
    training: Batches
    held_out: Batches


def pretrain(options: "Options") -> Outcome:
    """Gather, tokenize, train, measure and store. Raises BadInput and Refused, all before training where possible."""
    _check(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    heap.keep()
    work = options.output / "work"
    if options.gather and not (options.gather / "manifest.json").is_file():
        gather(options.gather, options.sites)
    folders = [*options.text, *([options.gather] if options.gather else [])]
    documents = find_documents(folders, options.held_out, options.seed)
    bench = _prepare(options, documents, work)
    if options.dry_run:
        return _outcome(options, bench, Counters())
    with Reporter(work / "metrics.jsonl", resume=options.resume) as reporter:
        counters = train(bench.model, bench.training, _settings(options), work / "snapshots", reporter.step)
    score = measure(bench.model, bench.held_out, bench.packed.held_out_bytes, options.bf16)
    outcome = _outcome(options, bench, counters, score)
    _store(options, bench, outcome, folders)
    return outcome


def _check(options: "Options") -> None:
    wrong = []
    if options.tokens is None and options.minutes is None and not options.dry_run:
        wrong.append("no budget: give --tokens, --minutes or both")
    for name in ("length", "batch", "accumulate", "rate", "vocabulary", "every"):
        if getattr(options, name) <= 0:
            wrong.append(f"{name} must be above 0, not {getattr(options, name)}")
    wrong += [
        f"{name} must be above 0, not {value}"
        for name in ("tokens", "minutes", "threads")
        if (value := getattr(options, name)) is not None and value <= 0
    ]
    if not 0 < options.held_out < 1:
        wrong.append(f"held_out must lie between 0 and 1, not {options.held_out}")
    if options.short and (options.short > options.length or not 0 < options.short_share < 1):
        wrong.append(f"short must be at most length ({options.length}) and short_share between 0 and 1")
    if options.short and options.objective not in ("causal", "masked"):
        wrong.append(f"short rows are for the objectives causal and masked, not {options.objective}")
    if not 0 <= options.warmup < 1:
        wrong.append(f"warmup must be at least 0 and below 1, not {options.warmup}")
    kept = snapshots(options.output / "work" / "snapshots")
    if kept and not options.resume:
        wrong.append(f"{options.output} holds a run ({kept[-1].name}): add --resume to go on, or choose another output")
    if wrong:
        raise BadInput("; ".join(wrong) + ".")


def _prepare(options: "Options", documents: Documents, work: Path) -> Bench:
    config = configure(options.config, options.fields)
    shape, device = shape_of(config, options.objective), _device(options.device)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and options.length > positions:
        raise BadInput(
            f"length {options.length} is more than the model's {positions} positions. "
            "Lower --length, or set max_position_embeddings."
        )
    tokenizer = _tokenizer(options, documents, work / "tokenizer")
    marks = marks_of(tokenizer, options.objective)
    packed = pack(documents, tokenizer, work / "packed")
    window = window_for(options.objective, shape, options.length, len(marks.sentinels))

    def batches(tokens: Any) -> Batches:
        return Batches(
            tokens, window, options.batch, options.objective, shape, marks, tokenizer.pad_token_id, options.seed
        )

    training, held_out = batches(packed.training), batches(packed.held_out)
    for side, found in (("training", training), ("held-out", held_out)):
        if not found.windows:
            raise BadInput(
                f"the {side} text has {len(found.tokens)} tokens, fewer than one row of {window}. "
                "Give more text or a lower --length."
            )
    config = configure(options.config, options.fields, tokenizer)
    model = build(config, shape, _attention(options, device), options.seed).to(device)  # type: ignore[arg-type]
    if shape == "decoder" and options.objective != "causal":
        probe_prefix(model, options.length, len(tokenizer))
    return Bench(tokenizer, model, shape, packed, training, held_out)


def _tokenizer(options: "Options", documents: Documents, folder: Path) -> Any:
    if options.tokenizer:
        return load_tokenizer(options.tokenizer)
    if not (folder / "tokenizer_config.json").is_file():
        denoising = options.objective in ("span", "mixture")
        made = train_tokenizer(
            read_texts(documents.training), options.kind, options.vocabulary, denoising, options.length
        )
        with writing_folder(folder) as temporary:
            made.save_pretrained(temporary)
    tokenizer = load_tokenizer(folder)
    if not options.tokenizer and len(tokenizer) != options.vocabulary:
        raise BadInput(
            f"{folder} has a tokenizer of {len(tokenizer)} entries, not {options.vocabulary}. Choose another output."
        )
    return tokenizer


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"device {name!r}: {error}. Give cpu, cuda, cuda:1, ... or auto.") from error


def _attention(options: "Options", device: torch.device) -> str:
    # SDPA's backward on a CPU is several times slower than plain products at short lengths in bfloat16.
    return "eager" if device.type == "cpu" and options.length <= 1024 else "sdpa"


def _settings(options: "Options") -> Settings:
    return Settings(
        tokens=options.tokens,
        minutes=options.minutes,
        rate=options.rate,
        warmup=options.warmup,
        accumulate=options.accumulate,
        decay=options.decay,
        optimizer=options.optimizer,
        bf16=options.bf16,
        seed=options.seed,
        every=options.every,
        short=options.short,
        short_share=options.short_share,
    )


def _outcome(options: "Options", bench: Bench, counters: Counters, score: HeldOut | None = None) -> Outcome:
    return Outcome(
        model=str(options.output / "model"),
        model_type=bench.model.config.model_type,
        objective=options.objective,
        parameters=sum(parameter.numel() for parameter in bench.model.parameters()),
        vocabulary=len(bench.tokenizer),
        training_tokens=len(bench.packed.training),
        seen_tokens=counters.tokens,
        steps=counters.step,
        minutes=counters.seconds / 60,
        loss=score.loss if score else None,
        perplexity=score.perplexity if score else None,
        bits_per_byte=score.bits_per_byte if score else None,
    )


def _store(options: "Options", bench: Bench, outcome: Outcome, texts: list[Path]) -> None:
    """Put the finished model, its tokenizer and its card beside work/."""
    recipe = {f.name: value for f in fields(options) if (value := getattr(options, f.name)) != _default(f)}
    recipe.pop("resume", None)
    if options.store == "bf16":
        bench.model.to(torch.bfloat16)  # type: ignore[arg-type]
    with writing_folder(Path(outcome.model)) as temporary:
        bench.model.save_pretrained(temporary)
        bench.tokenizer.save_pretrained(temporary)
        for path in temporary.iterdir():
            path.chmod(0o644)  # safetensors writes files that only their owner may read
        (temporary / "README.md").write_text(
            card(options.output.name, asdict(outcome), recipe, texts), encoding="utf-8"
        )


def _default(option: Field) -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()
