"""``torch.storage``: the memory behind a tensor as an object of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flambeau.core import dtype as types
from flambeau.core.device import device
from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout
from flambeau.engine.storage import Storage
from flambeau.interchange import to_list
from flambeau.tensor import Tensor


class TypedStorage:
    """A storage's memory as a flat sequence of elements of one type."""

    is_cuda = False
    is_sparse = False

    def __init__(self, storage: Storage, dtype: dtype) -> None:
        self._storage = storage
        self.dtype = dtype

    @property
    def device(self) -> device:
        return self._storage.device

    def _tensor(self) -> Tensor:
        layout = Layout.of((self.size(),), self.dtype, self._storage.device)
        return Tensor._from_storage(self._storage, layout)

    def untyped(self) -> UntypedStorage:
        return UntypedStorage(self._storage)

    def data_ptr(self) -> int:
        """The address of the memory; completes pending work first."""
        return self._storage.ready() if self._storage.nbytes else 0

    def element_size(self) -> int:
        return self.dtype.itemsize

    def nbytes(self) -> int:
        return self._storage.nbytes

    def size(self) -> int:
        """How many elements the memory holds."""
        return self._storage.nbytes // self.dtype.itemsize

    def tolist(self) -> list[Any]:
        found: list[Any] = to_list(self._tensor())
        return found

    def resize_(self, size: int) -> TypedStorage:
        """Changes the number of elements, keeping the common prefix."""
        self._storage.resize(size * self.dtype.itemsize)
        return self

    def copy_(self, source: TypedStorage, non_blocking: bool = False) -> TypedStorage:
        self._tensor().copy_(source._tensor())
        return self

    def fill_(self, value: Any) -> TypedStorage:
        self._tensor().fill_(value)
        return self

    def clone(self) -> TypedStorage:
        return type(self)._over(self._tensor().clone()._storage, self.dtype)

    @classmethod
    def _over(cls, storage: Storage, dtype: dtype) -> TypedStorage:
        return cls(storage, dtype)

    def cpu(self) -> TypedStorage:
        return self

    def is_shared(self) -> bool:
        return False

    def is_pinned(self, device: Any = "cuda") -> bool:
        return False

    @property
    def _cdata(self) -> int:
        return id(self._storage)

    def __len__(self) -> int:
        return self.size()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            raise RuntimeError("slices are only supported in UntypedStorage.__getitem__")
        return self._tensor()[index].item()

    def __setitem__(self, index: Any, value: Any) -> None:
        self._tensor()[index] = value

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypedStorage) and self._storage is other._storage

    def __hash__(self) -> int:
        return hash(self._storage)

    def __repr__(self) -> str:
        lines = "".join(f" {value}\n" for value in self.tolist())
        return (
            f"{lines}[torch.storage.TypedStorage(dtype={self.dtype}, device={self.device}) "
            f"of size {self.size()}]"
        )


class UntypedStorage(TypedStorage):
    """A storage's memory as bytes: ``UntypedStorage(4)`` makes a new one."""

    def __init__(self, storage: Storage | int = 0) -> None:
        super().__init__(Storage(storage) if isinstance(storage, int) else storage, types.uint8)

    @classmethod
    def _over(cls, storage: Storage, dtype: dtype) -> UntypedStorage:
        return cls(storage)

    def __repr__(self) -> str:
        lines = "".join(f" {value}\n" for value in self.tolist())
        return f"{lines}[torch.storage.UntypedStorage(device={self.device}) of size {self.size()}]"


def untyped_storage(self: Tensor) -> UntypedStorage:
    """Returns the bytes that the tensor is a view of."""
    return UntypedStorage(self._storage)


def storage(self: Tensor) -> TypedStorage:
    """Returns the memory that the tensor is a view of, as elements of its type."""
    return TypedStorage(self._storage, self.dtype)


METHODS: dict[str, Any] = {"storage": storage, "untyped_storage": untyped_storage}
