"""Where PyTorch keeps these two modules, which programs import from there."""

from flambeau.utils.data._utils import collate, worker
