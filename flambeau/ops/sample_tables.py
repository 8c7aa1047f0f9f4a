"""Sample tables that many operators share; see `Operator.samples`."""

from __future__ import annotations


def unary_samples(low=-2.0, high=2.0, integers=True):
    """The sample table of a function of one tensor, over ``[low, high]``."""

    def table(make):
        yield (make(3, 5, low=low, high=high),)
        yield (make(low=low, high=high),)
        yield (make(0, 4),)
        yield (make(4, 3, low=low, high=high, transposed=True),)
        yield (make(33, dtype="float64", low=low, high=high),)
        yield (make(7, dtype="bfloat16", low=low, high=high),)
        yield (make(7, dtype="float16", low=low, high=high),)
        if integers:
            yield (make(5, dtype="int64", low=low, high=high + 1),)
            yield (make(5, dtype="bool"),)

    return table


def binary_samples(low=-2.0, high=2.0, integers=True, numbers=(2, 0.5)):
    """The sample table of a function of two operands."""

    def table(make):
        yield make(3, 5, low=low, high=high), make(3, 5, low=low, high=high)
        yield make(3, 1, low=low, high=high), make(1, 5, low=low, high=high)
        yield make(2, 3, low=low, high=high), make(low=low, high=high)
        yield make(0, 4), make(4)
        yield make(4, 3, low=low, high=high, transposed=True), make(3, 4, low=low, high=high)
        yield make(6, dtype="float64", low=low, high=high), make(6, low=low, high=high)
        yield (
            make(6, dtype="float16", low=low, high=high),
            make(6, dtype="bfloat16", low=low, high=high),
        )
        for number in numbers:
            yield make(2, 3, low=low, high=high), number
        if integers:
            yield make(6, dtype="int64", low=1, high=9), make(6, dtype="int32", low=1, high=5)
            yield make(6, dtype="uint8", low=1, high=9), make(6, dtype="int8", low=1, high=5)
            yield make(6, dtype="int64", low=1, high=9), make(6, low=low, high=high)
            yield make(6, dtype="bool"), make(6, dtype="bool")
        yield make(3), make(4)

    return table
