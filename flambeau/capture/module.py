"""OptimizedModule: what ``torch.compile(module)`` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.nn.module import Module


class OptimizedModule(Module):
    """A module whose call is compiled; everything else is the original's, in ``_orig_mod``.

    Its parameters are the original's own; in ``state_dict()`` their names begin with
    ``_orig_mod.``, as PyTorch's do.
    """

    _own_names = frozenset(
        {"_orig_mod", "forward", "_compile", "_super_module_initialized", "training",
         "_torchdynamo_orig_callable"}
    )  # fmt: skip
    _super_module_initialized = False

    def __init__(self, mod: Module, compile: Callable[[Callable[..., Any]], Any]) -> None:
        super().__init__()
        self._super_module_initialized = True
        self._orig_mod = mod
        self._compile = compile
        self._initialize()

    def _initialize(self) -> None:
        mod = self._orig_mod
        self.__dict__["forward"] = self._compile(mod.__call__)
        self.__dict__["_torchdynamo_orig_callable"] = mod.forward

    def __len__(self) -> int:
        return len(self._orig_mod)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._orig_mod, self._compile)

    @property
    def training(self) -> bool:
        """The original's."""
        return self._orig_mod.training

    @training.setter
    def training(self, value: bool) -> None:
        # `Module.__init__` writes it before there is an original.
        if self._super_module_initialized:
            self._orig_mod.training = value

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod":
            return self._modules["_orig_mod"]
        return getattr(self._orig_mod, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_orig_mod":
            super().__setattr__(name, value)
        elif name in self._own_names or not self._super_module_initialized:
            object.__setattr__(self, name, value)
        else:
            setattr(self._orig_mod, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._own_names:
            super().__delattr__(name)
        else:
            delattr(self._orig_mod, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._orig_mod)})
