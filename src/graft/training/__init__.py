"""Training: one Trainer subclass, resuming without pickle, batches that fit the memory.

fit(model, tokenizer, task, train, validation, adapter, TrainingOptions(epochs=3)) -> Fit
"""

from graft.training.loop import Fit, fit
from graft.training.options import TrainingOptions
from graft.training.resume import checkpoints

__all__ = ["Fit", "TrainingOptions", "checkpoints", "fit"]
