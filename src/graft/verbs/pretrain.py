"""`graft pretrain`: a tokenizer and a model from nothing, on folders of text."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from graft.pretraining.run import Outcome


@dataclass(frozen=True)
class Options:
    """Train a tokenizer and a model from nothing on folders of text.

    The same options give the same model, also when the run was stopped, even killed, and went on with --resume; unless
    the budget is in minutes, which ties the learning rate to the clock.
    """

    text: Annotated[tuple[Path, ...], "folders with text files (.py .rst .md .txt)"] = ()
    output: Annotated[Path, "folder for model/, the finished model, and work/, the run's state"] = Path("pretrained")
    config: Annotated[str, "a config.json, a folder with one, or a model type: llama, gpt2, bert, t5, ..."] = "llama"
    fields: Annotated[dict[str, Any], "fields of the configuration to set (hidden_size: 256)"] = field(
        default_factory=dict
    )
    objective: Annotated[Literal["causal", "prefix", "masked", "span", "mixture"], "what is predicted"] = "causal"
    tokenizer: Annotated[Path | None, "folder of a tokenizer to use; without it one is trained"] = None
    kind: Annotated[Literal["bpe", "wordpiece", "unigram"], "kind of tokenizer to train"] = "bpe"
    vocabulary: Annotated[int, "entries of the trained tokenizer"] = 8192
    length: Annotated[int, "tokens in a row"] = 512
    short: Annotated[int | None, "tokens in a row during the first part of the run, which is faster"] = None
    short_share: Annotated[float, "how long that part is, as a share of the run"] = 0.75
    batch: Annotated[int, "rows in one forward pass"] = 8
    accumulate: Annotated[int, "forward passes in one optimizer step"] = 4
    tokens: Annotated[int | None, "stop after so many tokens"] = None
    minutes: Annotated[float | None, "stop after so many minutes of training"] = None
    rate: Annotated[float, "peak learning rate"] = 1e-3
    warmup: Annotated[float, "share of the budget in which the learning rate rises"] = 0.02
    decay: Annotated[float, "weight decay"] = 0.1
    optimizer: Annotated[Literal["adamw", "muon"], "muon: orthogonal updates for the matrices inside layers"] = "adamw"
    bf16: Annotated[bool, "do the arithmetic in bfloat16 (weights stay fp32 during training)"] = True
    store: Annotated[Literal["bf16", "fp32"], "type of the stored weights"] = "bf16"
    held_out: Annotated[float, "share of the documents kept for measuring, chosen by a hash of their path"] = 0.01
    every: Annotated[float, "minutes between snapshots"] = 5.0
    seed: Annotated[int, "seed of the weights, the order and the objective"] = 0
    threads: Annotated[int | None, "processor threads"] = None
    device: Annotated[str, "cpu, cuda, ...; auto: a GPU where there is one"] = "auto"
    resume: Annotated[bool, "go on from the newest snapshot in output, or start when there is none"] = False
    dry_run: Annotated[bool, "prepare tokenizer and text, show the sizes, train nothing"] = False
    gather: Annotated[Path | None, "gather the text of permissively licensed installed packages here, and use it"] = (
        None
    )
    sites: Annotated[tuple[Path, ...], "site-packages folders to gather from (default: this environment's)"] = ()


@dataclass(frozen=True)
class Result:
    """What was trained, see `graft.pretraining.run.Outcome`."""

    outcome: "Outcome"
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain values."""
        return asdict(self.outcome)

    def show(self, console: "Console") -> None:
        """Print one line per fact that is known."""
        for name, value in self.as_json().items():
            if value is not None:
                shown = (
                    f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
                )
                console.print(f"{name.replace('_', ' '):>16}  {shown}", highlight=False, markup=False, soft_wrap=True)


def run(options: Options) -> Result:
    """Gather (when asked), tokenize, train, measure and store. Raises BadInput and Refused."""
    from graft.pretraining.run import pretrain

    return Result(pretrain(options))
