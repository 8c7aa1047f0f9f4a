"""How objects are named in messages and laid out in the text of a module."""

from __future__ import annotations

from typing import Any

from flambeau.tensor import Tensor


def typename(obj: Any) -> str:
    """Returns the name a message calls ``obj`` by: ``torch.FloatTensor``, ``int``, ``a.b.C``."""
    if isinstance(obj, Tensor):
        return obj.type()
    kind = obj if isinstance(obj, type) else type(obj)
    module = getattr(kind, "__module__", "") or ""
    if module in ("builtins", "__builtin__", ""):
        return kind.__name__
    return f"{module}.{kind.__qualname__}"


def indent(text: str, spaces: int = 2) -> str:
    """Returns ``text`` with every line but the first moved right by ``spaces``."""
    return text.replace("\n", "\n" + " " * spaces)
