"""Optimizers and learning-rate schedulers: ``torch.optim``."""

from flambeau.optim import lr_scheduler
from flambeau.optim.adam import Adam
from flambeau.optim.adamw import AdamW
from flambeau.optim.optimizer import Optimizer
from flambeau.optim.optimizer import ParamsT as ParamsT
from flambeau.optim.optimizer import required as required
from flambeau.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
