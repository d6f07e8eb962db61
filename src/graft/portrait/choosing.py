"""When a method is a good choice: what others found, each with its source. Nothing here is graft's own opinion."""

from collections.abc import Collection
from dataclasses import dataclass

SURVEY = "Negi 2024, A Study on PEFT Techniques, Delhi Technological University, §5.3"


@dataclass(frozen=True)
class Advice:
    """A statement about a kind of task, its source, and what it is about: methods by name, or where they act."""

    task: str
    said: str
    source: str
    methods: tuple[str, ...] = ()
    workspace: str = ""

    def about(self, names: Collection[str], workspace: str) -> bool:
        """Whether it is about a method of one of these names, or one that acts there."""
        return bool(set(names) & set(self.methods)) or (bool(self.workspace) and self.workspace in workspace)


KNOWN = (
    Advice("tagging", "well suited, as in named entity recognition: after the frozen layers the embeddings have enough "
           "of the context", SURVEY, ("prompt_tuning",)),
    Advice("small budgets", "works with a small computation budget: very few parameters and O(1) complexity", SURVEY,
           ("prompt_tuning",)),
    Advice("question answering", "works well, with impressive results in multiple choice: acting on queries and values "
           "helps to connect the words of question and answer", SURVEY, ("lora",)),
    Advice("question answering", "may improve attention further, and with it the hidden representations", SURVEY,
           ("tiny_attention",)),
    Advice("summarization and data-to-text", "prefix tuning and LoRA perform alike; LoRA has fewer parameters and "
           "tends to be more efficient", f"{SURVEY}, on arXiv 2101.00190, 2205.05638, 2210.13673 and Ding et al. 2023, "
           "doi 10.1038/s42256-023-00626-4", ("lora", "prefix_tuning")),
    Advice("summarization and data-to-text", "performs well, but less faithful to the source than full fine-tuning and "
           "prefix tuning", f"{SURVEY}, on Xu et al. 2022, arXiv 2210.13673", ("houlsby",)),
    Advice("complex reasoning", "methods that act in attention are recommended",
           f"{SURVEY}, on Chen et al. 2022, doi 10.1109/TPAMI.2021.3114582", workspace="attention"),
    Advice("new concepts", "feed-forward networks can store new knowledge",
           f"{SURVEY}, on Dai et al. 2022, arXiv 2104.08696", workspace="FFN"),
    Advice("simple tasks", "to add what a task needs through the embedding layer is enough", SURVEY,
           workspace="embedding layer"),
)  # fmt: skip


def advice(names: Collection[str], workspace: str) -> list[Advice]:
    """What is known of methods called so, or that act there."""
    return [each for each in KNOWN if each.about(names, workspace)]
