"""``torch._dynamo.utils``."""

from typing import Any


def is_compile_supported(device_type: Any) -> bool:
    """Functions can be compiled for every device there is."""
    return True
