"""``torch.autograd.graph``: the graph as users see it."""

from flambeau.graph import AccumulateGrad, Node, RemovableHandle

__all__ = ["AccumulateGrad", "Node", "RemovableHandle"]
