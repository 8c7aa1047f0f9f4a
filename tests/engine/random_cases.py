"""What is drawn for the comparison with PyTorch: one table, for both sides.

A case is (operation, type, number of elements, arguments).  All cases of a list draw from one
generator, one after the other.
"""

SEED = 1234
SEEDS = (0, 1, -1, 2**32 + 5, 2**64 - 1)

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")
SIZES = (1, 2, 15, 16, 17, 31, 40, 100, 625, 2049, 5000)

# Computed by the C library in double precision: the last bit depends on the system.
BY_LIBRARY = ("exponential", "cauchy", "log_normal", "geometric")


def _cases():
    for dtype in FLOATS:
        for size in SIZES:
            yield "uniform", dtype, size, (0.0, 1.0)
            yield "uniform", dtype, size, (-0.3, 2.7)
            yield "normal", dtype, size, (0.0, 1.0)
            yield "normal", dtype, size, (0.5, 2.5)
            yield "exponential", dtype, size, (0.5,)
        yield "cauchy", dtype, 100, (0.3, 1.7)
        yield "log_normal", dtype, 101, (1.0, 2.0)
    for dtype in (*FLOATS, *INTEGERS):
        for size in (1, 40, 2049):
            yield "bernoulli", dtype, size, (0.3,)
            yield "random", dtype, size, ()
        yield "bernoulli", dtype, 100, (0.0,)
        yield "bernoulli", dtype, 100, (1.0,)
        yield "bernoulli_each", dtype, 100, ("float32",)
        yield "bernoulli_each", dtype, 100, ("float64",)
        if dtype != "bool":
            yield "randint", dtype, 1000, (3, 127)
            yield "randperm", dtype, 120, ()
            yield "geometric", dtype, 100, (0.3,)
    for bounds in ((0, 10), (-(2**28), 1), (-(2**40), 2**50 + 7), (-(2**63), 2**63 - 1), (5, None)):
        yield "randint", "int64", 1000, bounds
        yield "randint", "float32", 1000, bounds
    yield "randint", "int32", 1000, (-(2**31), 2**31)
    for dtype in ("int64", "float64", "float32", "bfloat16"):
        yield "random_full", dtype, 100, ()
    yield "randperm", "int64", 5000, ()
    for categories in (1, 2, 7, 1000):
        yield "choices", "float32", 100, (categories,)
        yield "choices", "float64", 100, (categories,)


CASES = tuple(_cases())


def title(case):
    operation, dtype, size, arguments = case
    return f"{operation}{arguments} {dtype}[{size}]"


def weights(count):
    """Numbers in (0, 1) that any language computes alike."""
    return [((37 * i + 11) % 101 + 1) / 128 for i in range(count)]
