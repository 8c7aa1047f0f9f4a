"""Sums of products over named dimensions: ``einsum`` and ``tensordot``, made of ``bmm``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flambeau.ops.matmul import bmm, mm
from flambeau.ops.pointwise import mul
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.view import diagonal, permute, reshape, squeeze
from flambeau.tensor import Tensor, wrap_dim


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Tensor:
    """Returns the product of ``a`` and ``b`` summed over pairs of dimensions.

    ``dims`` is how many (the last of ``a`` with the first of ``b``), or two lists of dimensions.
    """
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        first, second = list(range(-dims, 0)), list(range(dims))
    else:
        first, second = ([d] if isinstance(d, int) else list(d) for d in dims)
    if len(first) != len(second):
        raise RuntimeError("both dimension lists should have same length")
    for d, e in zip(first, second, strict=True):
        # A size of 1 stands for any: the other side is summed first, as in PyTorch.
        if a.shape[d] == 1 != b.shape[e]:
            b = sum_(b, (e,), True)
        elif b.shape[e] == 1 != a.shape[d]:
            a = sum_(a, (d,), True)
        elif a.shape[d] != b.shape[e]:
            raise RuntimeError(
                f"contracted dimensions need to match, but first has size {a.shape[d]} in dim {d} "
                f"and second has size {b.shape[e]} in dim {e}"
            )
    first = [wrap_dim(d, a.ndim) for d in first]
    second = [wrap_dim(d, b.ndim) for d in second]
    kept_a = [d for d in range(a.ndim) if d not in first]
    kept_b = [d for d in range(b.ndim) if d not in second]
    shape = (*(a.shape[d] for d in kept_a), *(b.shape[d] for d in kept_b))
    inner = math.prod(a.shape[d] for d in first)
    left = reshape(permute(a, (*kept_a, *first)), (_size(a, kept_a), inner))
    right = reshape(permute(b, (*second, *kept_b)), (inner, _size(b, kept_b)))
    result = reshape(mm(left, right), shape)
    return result if out is None else out.resize_(shape).copy_(result)


def _size(tensor: Tensor, dims: Sequence[int]) -> int:
    return math.prod(tensor.shape[d] for d in dims)


@dataclass(frozen=True)
class Term:
    """An operand with one label per dimension, each label once."""

    tensor: Tensor
    labels: tuple[str, ...]


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Returns the sum of products that the equation says: ``einsum("bij,bjk->bik", x, y)``.

    Labels missing from the result are summed over; a label twice in an operand takes its diagonal;
    ``...`` stands for dimensions that broadcast; the sublist form ``einsum(x, [0, 1], …)`` works.
    """
    if isinstance(equation, Tensor):
        equation, operands = _from_sublists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    inputs, output = _parse(equation, operands)
    terms = [_diagonals(t, labels, k) for k, (t, labels) in enumerate(zip(operands, inputs))]
    _check_sizes(terms)
    result = terms[0]
    for position, term in enumerate(terms[1:], 1):
        later = {label for t in terms[position + 1 :] for label in t.labels}
        result = _contract(result, term, later | set(output))
    result = _sum_out(result, set(output))
    order = [result.labels.index(label) for label in output]
    return permute(result.tensor, tuple(order))


def _from_sublists(arguments: Sequence[Any]) -> tuple[str, tuple[Tensor, ...]]:
    """``x, [0, 1], y, [1, 2], [0, 2]`` as an equation and its operands."""
    pairs = list(arguments)
    output = pairs.pop() if len(pairs) % 2 else None
    texts = [_letters(labels) for labels in pairs[1::2]]
    equation = ",".join(texts) + ("" if output is None else "->" + _letters(output))
    return equation, tuple(pairs[::2])


def _letters(labels: Sequence[Any]) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join("..." if label is Ellipsis else alphabet[label] for label in labels)


def _parse(
    equation: str, operands: Sequence[Tensor]
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Labels of the operands and of the result; the ellipsis becomes labels of its own."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) > len(operands):
        raise RuntimeError("einsum(): fewer operands were provided than specified in the equation")
    if len(texts) < len(operands):
        raise RuntimeError("einsum(): more operands were provided than specified in the equation")
    inputs = [_labels(text, t, k) for k, (text, t) in enumerate(zip(texts, operands))]
    covered = {label for labels in inputs for label in labels if label.startswith(".")}
    ellipsis = tuple(sorted(covered, key=lambda label: -int(label[1:])))
    if arrow:
        output = _split_labels(right, ellipsis)
        _check_output(output, inputs)
    else:
        counts = "".join(text.replace(".", "") for text in texts)
        once = sorted(label for label in set(counts) if counts.count(label) == 1)
        output = (*ellipsis, *once)
    return inputs, output


def _labels(text: str, operand: Tensor, position: int) -> tuple[str, ...]:
    for k, character in enumerate(text.replace("...", "")):
        if not (character.isascii() and character.isalpha()):
            raise RuntimeError(
                f"einsum(): invalid subscript given at index {k} in the equation string, "
                "subscripts must be in [a-zA-Z]"
            )
    named = len(text.replace("...", ""))
    has_ellipsis = "..." in text
    if named > operand.ndim or (named < operand.ndim and not has_ellipsis):
        raise RuntimeError(
            f"einsum(): the number of subscripts in the equation ({named}) "
            f"{'is more than' if has_ellipsis else 'does not match'} the number of dimensions "
            f"({operand.ndim}) for operand "
            f"{position}{'' if has_ellipsis else ' and no ellipsis was given'}"
        )
    # Labels of covered dimensions count from the last one, as broadcasting does.
    count = operand.ndim - named
    return _split_labels(text, tuple(f".{k}" for k in range(count - 1, -1, -1)))


def _split_labels(text: str, ellipsis: tuple[str, ...]) -> tuple[str, ...]:
    before, dots, after = text.partition("...")
    return (*before, *(ellipsis if dots else ()), *after)


def _check_output(output: Sequence[str], inputs: Sequence[Sequence[str]]) -> None:
    for label in output:
        if output.count(label) > 1:
            raise RuntimeError(
                f"einsum(): output subscript {label} appears more than once in the output"
            )
        if not any(label in labels for labels in inputs):
            raise RuntimeError(
                f"einsum(): output subscript {label} does not appear in the equation for any "
                "input operand"
            )


def _diagonals(tensor: Tensor, labels: Sequence[str], position: int) -> Term:
    """Labels that an operand has twice become its diagonal."""
    names = list(labels)
    for label in dict.fromkeys(labels):
        while names.count(label) > 1:
            a = names.index(label)
            b = names.index(label, a + 1)
            if tensor.shape[a] != tensor.shape[b]:
                raise RuntimeError(
                    f"einsum(): subscript {label} is repeated for operand {position} but the sizes "
                    f"don't match, {tensor.shape[b]} != {tensor.shape[a]}"
                )
            tensor = diagonal(tensor, 0, a, b)
            del names[b], names[a]
            names.append(label)
    return Term(tensor, tuple(names))


def _check_sizes(terms: Sequence[Term]) -> None:
    seen: dict[str, int] = {}
    for position, term in enumerate(terms):
        for label, size in zip(term.labels, term.tensor.shape, strict=True):
            known = seen.setdefault(label, size)
            if known == 1:
                seen[label] = size
            elif size not in (1, known):
                raise RuntimeError(
                    f"einsum(): subscript {label} has size {size} for operand {position} which "
                    f"does not broadcast with previously seen size {known}"
                )


def _sum_out(term: Term, kept: set[str]) -> Term:
    dims = tuple(d for d, label in enumerate(term.labels) if label not in kept)
    if not dims:
        return term
    return Term(sum_(term.tensor, dims), tuple(label for label in term.labels if label in kept))


def _contract(a: Term, b: Term, kept: set[str]) -> Term:
    """The product of two terms, summed over the labels that nothing needs any more."""
    a = _sum_out(a, kept | set(b.labels))
    b = _sum_out(b, kept | set(a.labels))
    a, b = _without_ones(a, b), _without_ones(b, a)
    common = [label for label in a.labels if label in b.labels]
    batch = [label for label in common if label in kept]
    summed = [label for label in common if label not in kept]
    only_a = [label for label in a.labels if label not in common]
    only_b = [label for label in b.labels if label not in common]
    sizes = dict(zip((*a.labels, *b.labels), (*a.tensor.shape, *b.tensor.shape), strict=True))
    labels = (*batch, *only_a, *only_b)
    shape = tuple(sizes[label] for label in labels)
    if not summed:
        left = _placed(a, labels)
        return Term(reshape(mul(left, _placed(b, labels)), shape), labels)
    left = _matrix(a, [batch, only_a, summed])
    right = _matrix(b, [batch, summed, only_b])
    return Term(reshape(bmm(left, right), shape), labels)


def _without_ones(term: Term, other: Term) -> Term:
    """Drops dimensions of size 1 that broadcast against the other operand's."""
    sizes = dict(zip(other.labels, other.tensor.shape, strict=True))
    dims = tuple(
        d
        for d, label in enumerate(term.labels)
        if term.tensor.shape[d] == 1 and sizes.get(label, 1) != 1
    )
    if not dims:
        return term
    labels = tuple(label for d, label in enumerate(term.labels) if d not in dims)
    return Term(squeeze(term.tensor, dims), labels)


def _placed(term: Term, labels: Sequence[str]) -> Tensor:
    """The tensor with a dimension for every label, of size 1 where it lacks one."""
    own = [label for label in labels if label in term.labels]
    ordered = permute(term.tensor, tuple(term.labels.index(label) for label in own))
    sizes = dict(zip(own, ordered.shape, strict=True))
    return reshape(ordered, tuple(sizes.get(label, 1) for label in labels))


def _matrix(term: Term, groups: Sequence[Sequence[str]]) -> Tensor:
    """Three dimensions, one per group of labels."""
    flat = [label for group in groups for label in group]
    ordered = permute(term.tensor, tuple(term.labels.index(label) for label in flat))
    sizes = dict(zip(flat, ordered.shape, strict=True))
    shape = tuple(math.prod(sizes[label] for label in group) for group in groups)
    return reshape(ordered, shape)


__all__ = ["einsum", "tensordot"]
