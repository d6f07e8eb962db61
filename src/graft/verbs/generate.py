"""`graft generate`: write text with a model, an adapter, or both side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from graft.decode import Speaker


@dataclass(frozen=True)
class Options:
    """Write text after a prompt, after each prompt of a file, or in turns; streamed as it comes.

    Prompts go through the adapter's own template, so that they look as they did in training. Without --prompt and
    --prompts, lines are read from the terminal (an empty one ends).
    """

    model: Annotated[str, "folder, Hugging Face id, or name of a bundled base"]
    adapter: Annotated[str | None, "folder or Hugging Face id of an adapter"] = None
    prompt: Annotated[str | None, "one prompt"] = None
    prompts: Annotated[Path | None, "file of prompts: .txt with one a line, or .jsonl with rows for the template"] = (
        None
    )
    base: Annotated[bool, "also show what the base writes without the adapter"] = False
    task: Annotated[str | None, "which task the prompts belong to, for an adapter that knows several"] = None
    plain: Annotated[bool, "the prompt as it is, without the adapter's template"] = False
    max_new_tokens: Annotated[int | None, "tokens to write at most; by default what the task needs, else 128"] = None
    temperature: Annotated[float, "0 takes the likeliest token, 1 samples as the model says"] = 0.0
    top_k: Annotated[int, "sample among this many of the likeliest tokens (0: all)"] = 0
    top_p: Annotated[float, "sample among the likeliest tokens that together have this probability"] = 1.0
    beams: Annotated[int, "beam search with this many beams; nothing is streamed then"] = 1
    repetition_penalty: Annotated[float, "above 1: tokens that were written become less likely"] = 1.0
    seed: Annotated[int, "of sampling"] = 0
    dtype: Annotated[Literal["auto", "bf16", "fp32"], "of the base; auto: bf16 on a GPU that has it, else fp32"] = (
        "auto"
    )
    device: Annotated[str, "cpu, cuda, cuda:1, mps; auto: a GPU where there is one"] = "auto"
    force: Annotated[bool, "use the adapter on another base than it was made for"] = False
    trust_remote_code: Annotated[bool, "run the code that comes with this model"] = False


@dataclass(frozen=True)
class Result:
    """Text that is written while it is shown."""

    speaker: "Speaker"
    prompts: Iterator[Any]
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """Every prompt with what each system wrote."""
        return {"answers": [{"prompt": asked, **self.speaker.answers(asked)} for asked in self.prompts]}

    def show(self, console: "Console") -> None:
        """Print the text as it comes, each system under its name where there are several."""
        for number, asked in enumerate(self.prompts):
            if number:
                console.print()
            for system, pieces in self.speaker.speak(asked):
                if len(self.speaker.systems) > 1:
                    console.print(f"{system}: ", style="bold", end="")
                for piece in pieces:
                    console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
                console.print()


def run(options: Options) -> Result:
    """Load the model; what it writes is written when the result is shown. Raises BadInput for prompts in two places."""
    from graft.decode import Speaker, Writing, read_prompts, typed
    from graft.errors import BadInput
    from graft.limits import check_numbers
    from graft.loading import find_base

    check_numbers(options, {"seed": 0})
    if options.prompt is not None and options.prompts is not None:
        raise BadInput("give --prompt or --prompts, not both.")
    if options.adapter is None and options.base:
        raise BadInput("--base shows the base beside an adapter: give an --adapter.")
    if options.adapter is None and options.task is not None:
        raise BadInput("--task names one of the tasks of an adapter: give an --adapter.")
    how = Writing(
        max_new_tokens=options.max_new_tokens, temperature=options.temperature, top_k=options.top_k,
        top_p=options.top_p, beams=options.beams, repetition_penalty=options.repetition_penalty, seed=options.seed,
    )  # fmt: skip
    if options.prompt is not None:
        prompts: Iterator[Any] = iter([options.prompt])
    else:
        prompts = typed() if options.prompts is None else iter(read_prompts(options.prompts))
    speaker = Speaker(
        find_base(options.model, options.trust_remote_code), options.adapter, how, beside=options.base,
        plain=options.plain, of=options.task, dtype=options.dtype, device=options.device, force=options.force,
        remember=options.prompt is None and options.prompts is None,
    )  # fmt: skip
    return Result(speaker, prompts)
