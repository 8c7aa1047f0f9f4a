"""``torch.types``: names for annotations.  The leading underscore is PyTorch's."""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence
from typing import IO, Any, TypeAlias

from flambeau.core.device import device
from flambeau.core.dtype import dtype
from flambeau.core.layout import Size
from flambeau.core.memory_format import layout, memory_format
from flambeau.tensor import Tensor

_bool: TypeAlias = builtins.bool
_complex: TypeAlias = builtins.complex
_float: TypeAlias = builtins.float
_int: TypeAlias = builtins.int
_str: TypeAlias = builtins.str
_device: TypeAlias = device
_dtype: TypeAlias = dtype
_layout: TypeAlias = layout
_memory_format: TypeAlias = memory_format
_size: TypeAlias = Size | list[builtins.int] | tuple[builtins.int, ...]

Number: TypeAlias = builtins.int | builtins.float | builtins.bool | builtins.complex
Device: TypeAlias = device | builtins.str | builtins.int | None
FileLike: TypeAlias = builtins.str | os.PathLike[builtins.str] | IO[builtins.bytes]
_TensorOrTensors: TypeAlias = Tensor | Sequence[Tensor]
_TensorOrTensorsOrGradEdge: TypeAlias = Any
