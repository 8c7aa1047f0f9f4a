"""The transformations of F(2 x 2, 3 x 3), line by line; a square takes one along each side."""

from __future__ import annotations

from flambeau.compiler.builder import Builder, Var


def filter_line(builder: Builder, line: list[Var]) -> list[Var]:
    """G times a line of three."""
    first, middle, last = line
    outer = builder.mul(builder.add(first, last), 0.5)
    half = builder.mul(middle, 0.5)
    return [first, builder.add(outer, half), builder.sub(outer, half), last]


def source_line(builder: Builder, line: list[Var]) -> list[Var]:
    """Bt times a line of four."""
    a, b, c, d = line
    return [builder.sub(a, c), builder.add(b, c), builder.sub(c, b), builder.sub(b, d)]


def result_line(builder: Builder, line: list[Var]) -> list[Var]:
    """At times a line of four."""
    a, b, c, d = line
    total, difference = builder.add(b, c), builder.sub(b, c)
    return [builder.add(a, total), builder.sub(difference, d)]


def columns_of(square: list[list[Var]]) -> list[list[Var]]:
    return [list(column) for column in zip(*square, strict=True)]


def gradient_line(builder: Builder, line: list[Var]) -> list[Var]:
    """A times a line of two."""
    a, b = line
    return [a, builder.add(a, b), builder.sub(a, b), builder.neg(b)]


def window_line(builder: Builder, line: list[Var]) -> list[Var]:
    """The transpose of G times a line of four."""
    a, b, c, d = line
    total = builder.mul(builder.add(b, c), 0.5)
    difference = builder.mul(builder.sub(b, c), 0.5)
    return [builder.add(a, total), difference, builder.add(total, d)]
