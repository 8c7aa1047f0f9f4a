"""``torch.return_types``: the named tuples that operators with several results return."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ReturnType(tuple[Any, ...]):
    """A tuple whose elements have names; prints as PyTorch's."""

    __slots__ = ()
    fields: tuple[str, ...] = ()

    def __new__(cls, values: Iterable[Any], extra: dict[str, Any] | None = None) -> ReturnType:
        values = tuple(values)
        if len(values) != len(cls.fields):
            raise TypeError(
                f"torch.return_types.{cls.__name__}() takes a {len(cls.fields)}-sequence "
                f"({len(values)}-sequence given)"
            )
        return tuple.__new__(cls, values)

    def __repr__(self) -> str:
        lines = ",\n".join(f"{n}={v!r}" for n, v in zip(self.fields, self, strict=True))
        return f"torch.return_types.{type(self).__name__}(\n{lines})"

    def __reduce__(self) -> Any:
        return type(self), (tuple(self), {})


def _field(position: int) -> property:
    return property(lambda self: tuple.__getitem__(self, position))


def _named(name: str, *fields: str) -> type[ReturnType]:
    members: dict[str, Any] = {f: _field(k) for k, f in enumerate(fields)}
    count = len(fields)
    members |= {"fields": fields, "__slots__": (), "__module__": "torch.return_types"}
    members |= {"n_fields": count, "n_sequence_fields": count, "n_unnamed_fields": 0}
    return type(name, (ReturnType,), members)


max = _named("max", "values", "indices")
min = _named("min", "values", "indices")
aminmax = _named("aminmax", "min", "max")
cummax = _named("cummax", "values", "indices")
cummin = _named("cummin", "values", "indices")
kthvalue = _named("kthvalue", "values", "indices")
median = _named("median", "values", "indices")
mode = _named("mode", "values", "indices")
nanmedian = _named("nanmedian", "values", "indices")
frexp = _named("frexp", "mantissa", "exponent")
sort = _named("sort", "values", "indices")
topk = _named("topk", "values", "indices")
