"""Arguments that PyTorch once took by names it has since dropped."""

import functools
import warnings
from collections.abc import Callable
from typing import Any


def old_keywords(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For an ``__init__``: arguments given by these names become its first positional ones.

    Warns the first time, naming the modern spelling.
    """

    def decorate(initialize: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(initialize)
        def accepting(self: Any, *args: Any, **kwargs: Any) -> None:
            given = [name for name in names if name in kwargs]
            if given:
                _warn_once(type(self).__name__, tuple(given))
                args = (*(kwargs.pop(name) for name in given), *args)
            initialize(self, *args, **kwargs)

        return accepting

    return decorate


@functools.cache
def _warn_once(owner: str, names: tuple[str, ...]) -> None:
    old = ", ".join(f"{name}=…" for name in names)
    warnings.warn(
        f"{owner}({old}): these names are of an old PyTorch; give the arguments by position.",
        FutureWarning,
        stacklevel=4,
    )
