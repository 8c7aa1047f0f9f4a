"""Versions: PyTorch's, which ``__version__`` answers for libraries that ask, and our own.

``torch.version`` has the same fields; ``flambeau`` is the one that is ours.
"""

# The version whose API and behaviour is followed; programs compare it with what they need.
__version__ = "2.13.0"
# The version of this package; pyproject.toml says the same.
flambeau = "0.1.0"

debug = False
cuda: str | None = None
hip: str | None = None
xpu: str | None = None
git_version = ""
