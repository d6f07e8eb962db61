"""`--show-mask N`: rows as the model gets them, with what is trained marked."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from graft.data.task import Features, Task

OPEN, CLOSE = "⟦", "⟧"


def show_mask(task: Task, features: Sequence[Features], tokenizer: Any, n: int = 3) -> Text:
    """The first n features, trained tokens green and between ⟦ ⟧, so that they stand out without color as well."""
    text = Text()
    for number, feature in enumerate(features[:n]):
        text.append(f"row {feature.get('item', number)}\n", style="bold")
        for piece, trained in task.segments(feature, tokenizer):
            text.append(f"{OPEN}{piece}{CLOSE}" if trained else piece, style="bold green" if trained else "")
        text.append("\n")
    return text
