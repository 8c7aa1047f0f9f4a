"""Counting the digits of sort keys: the step that ordering and selecting by digits share."""

from __future__ import annotations

from flambeau.compiler.builder import I64, Builder, Var

DIGITS = 256
POSITION = "i32"


class Digits:
    """Writes counts of 8-bit digits; ``counters`` is set before any is used."""

    counters: Var

    def __init__(self, b: Builder, key: str, itemsize: int) -> None:
        self.b = b
        self.key = key
        self.itemsize = itemsize

    def of_place(self, place: Var) -> tuple[Var, Var]:
        """The digit of the key that belongs at ``place``, and how many have a lesser one."""
        b = self.b

        def step(digit: Var, carried: list[Var]) -> list[Var]:
            found, before, total = carried
            after = b.add(total, b.load(I64, self.counter(digit), 8))
            here = b.and_(b.compare("sle", total, place), b.compare("sgt", after, place))
            return [b.select(here, digit, found), b.select(here, total, before), after]

        zero = b.constant(0)
        _, (found, before, _) = b.loop(0, DIGITS, 1, [zero, zero, zero], step)
        return found, before

    def leading(self, key: Var, shift: int) -> Var:
        return self.b.convert("zext", self.b.lshr(key, shift) if shift else key, I64)

    def digit(self, key: Var, shift: int) -> Var:
        b = self.b
        digit = b.lshr(key, shift) if shift else key
        digit = b.and_(digit, DIGITS - 1) if self.itemsize * 8 > 8 else digit
        return b.convert("zext", digit, I64)

    def count(self, keys: Var, shift: int, length: Var, bound: Var | None = None) -> None:
        """How often each digit occurs; with ``bound`` among keys with these digits before it."""
        b = self.b
        b.loop(0, DIGITS, 1, [], lambda d, _: b.store(b.constant(0), self.counter(d), 8))

        def count(i: Var, _: list[Var]) -> None:
            key = b.load(self.key, b.gep(self.key, keys, i), self.itemsize)
            counter = self.counter(self.digit(key, shift))
            one = b.constant(1)
            if bound is not None:
                counts = b.compare("eq", self.leading(key, shift + 8), bound)
                one = b.convert("zext", counts, I64)
            b.store(b.add(b.load(I64, counter, 8), one), counter, 8)

        b.loop(0, length, 1, [], count)

    def counter(self, digit: Var) -> Var:
        return self.b.gep(I64, self.counters, digit)
