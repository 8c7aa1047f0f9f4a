"""``torch.backends``: what PyTorch lets programs ask and set about the libraries under it.

flambeau has one way to compute, so these answer, and remember what they are told.
"""

from flambeau.backends import cuda, cudnn, mha, mkl, mps, openmp

__all__ = ["cuda", "cudnn", "mha", "mkl", "mps", "openmp"]
