"""``torch._dynamo.eval_frame``."""

from flambeau.capture.module import OptimizedModule


def is_dynamo_supported() -> bool:
    """Functions can be compiled on every platform."""
    return True


def is_inductor_supported() -> bool:
    """The engine has its own compiler."""
    return True


__all__ = ["OptimizedModule", "is_dynamo_supported", "is_inductor_supported"]
