"""Problems for the convolution tests, and what they should give, in plain numpy and float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flambeau.compiler.convolution import ConvolutionProblem
from flambeau.core.dtype import float32, float64


@dataclass(frozen=True)
class Case:
    """A problem with its operands and expected results."""

    problem: ConvolutionProblem
    operands: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]

    def operands_for(self, result: str, *names: str) -> dict[str, np.ndarray]:
        empty = np.full(self.expected[result].shape, 7, self.problem.dtype.numpy)
        return {result: empty, **{name: self.operands[name] for name in names}}

    def check(self, result: str, values: np.ndarray) -> None:
        eps = np.finfo(values.dtype).eps
        scale = max(1.0, float(np.abs(self.expected[result]).max(initial=0)))
        difference = float(np.abs(values - self.expected[result]).max(initial=0))
        assert difference <= 200 * eps * scale, (result, self.problem, difference)


def make_case(problem: ConvolutionProblem, seed: int = 0) -> Case:
    generator = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(problem.dtype.numpy)

    operands = {
        "input": draw(problem.batch, problem.in_channels, *problem.in_size),
        "weight": draw(problem.out_channels, problem.in_per_group, *problem.kernel),
        "bias": draw(problem.out_channels),
        "grad_output": draw(problem.batch, problem.out_channels, *problem.out_size),
    }
    return Case(problem, operands, _expected(problem, operands))


def random_problem(seed: int) -> ConvolutionProblem:
    """A small problem of any geometry."""
    generator = np.random.default_rng(seed)

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(generator.integers(low, high)), int(generator.integers(low, high))

    groups = int(generator.choice([1, 1, 1, 2, 3]))
    kernel, dilation, stride = pair(1, 6), pair(1, 4), pair(1, 4)
    pad_low, pad_high = pair(0, 4), pair(0, 4)
    needed = [dilation[i] * (kernel[i] - 1) + 1 - pad_low[i] - pad_high[i] for i in range(2)]
    size = tuple(int(generator.integers(max(1, n), max(1, n) + 25)) for n in needed)
    return ConvolutionProblem(
        dtype=(float32, float64)[seed % 2],
        batch=int(generator.integers(1, 11)),
        in_channels=groups * int(generator.integers(1, 7)),
        out_channels=groups * int(generator.integers(1, 20)),
        in_size=size,
        kernel=kernel,
        stride=stride,
        pad_low=pad_low,
        pad_high=pad_high,
        dilation=dilation,
        groups=groups,
        has_bias=bool(generator.integers(2)),
    )


def _expected(
    problem: ConvolutionProblem, operands: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    (top, left), (bottom, right) = problem.pad_low, problem.pad_high
    exact = {name: array.astype(np.float64) for name, array in operands.items()}
    grad, weight = exact["grad_output"], exact["weight"]
    padded = np.pad(exact["input"], ((0, 0), (0, 0), (top, bottom), (left, right)))
    grad_padded, grad_weight = np.zeros_like(padded), np.zeros_like(weight)
    output = np.zeros_like(grad)
    if problem.has_bias:
        output += exact["bias"][:, None, None]
    for group in range(problem.groups):
        ins = slice(group * problem.in_per_group, (group + 1) * problem.in_per_group)
        outs = slice(group * problem.out_per_group, (group + 1) * problem.out_per_group)
        for row, column in np.ndindex(*problem.kernel):
            seen = (slice(None), ins, _seen(problem, 0, row), _seen(problem, 1, column))
            taps = weight[outs, :, row, column]
            output[:, outs] += np.einsum("nchw,oc->nohw", padded[seen], taps)
            grad_padded[seen] += np.einsum("nohw,oc->nchw", grad[:, outs], taps)
            products = np.einsum("nchw,nohw->oc", padded[seen], grad[:, outs])
            grad_weight[outs, :, row, column] = products
    rows, columns = problem.in_size
    return {
        "output": output,
        "grad_input": grad_padded[:, :, top : top + rows, left : left + columns],
        "grad_weight": grad_weight,
        "grad_bias": grad.sum((0, 2, 3)),
    }


def _seen(problem: ConvolutionProblem, axis: int, tap: int) -> slice:
    """What a tap meets along an axis of the padded input."""
    first = tap * problem.dilation[axis]
    count, stride = problem.out_size[axis], problem.stride[axis]
    return slice(first, first + (count - 1) * stride + 1 if count else first, stride)
