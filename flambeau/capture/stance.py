"""What compiled functions do on the whole: be replayed, or run as they are."""

from __future__ import annotations


class Stance:
    """The process's choice, made by ``torch.compiler.set_stance``."""

    forced_eager = False


stance = Stance()
