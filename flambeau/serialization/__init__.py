"""``torch.save`` and ``torch.load``: PyTorch's files, both ways.

A file is a zip archive (`archive`) of one pickle (`pickling`, `restricted`), in which our objects
go by PyTorch's names (`names`, `rebuild`), and of the storages that it refers to.
"""

from flambeau.serialization.allowed import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    safe_globals,
)
from flambeau.serialization.loading import load
from flambeau.serialization.saving import get_crc32_options, save, set_crc32_options
