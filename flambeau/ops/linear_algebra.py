"""Products and norms of matrices that other operators are enough for: ``kron``, ``cdist``, …"""

from __future__ import annotations

import math as numbers
from typing import Any

from flambeau.core.layout import broadcast_shapes
from flambeau.ops.conversion import to_dtype
from flambeau.ops.creation import eye, ones
from flambeau.ops.declare import composite
from flambeau.ops.extreme import amax, amin
from flambeau.ops.joining import stack
from flambeau.ops.matmul import bmm, dot, matmul
from flambeau.ops.norm import vector_norm
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.view import expand, reshape, transpose, unsqueeze
from flambeau.tensor import Tensor, wrap_dim


def _scaled(tensor: Tensor, factor: Any) -> Tensor:
    if not tensor.dtype.is_floating_point:
        factor = bool(factor) if tensor.dtype.category == "bool" else int(factor)
    return tensor if factor == 1 else tensor * factor


def _combined(self: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    """``beta * self + alpha * product``; a ``beta`` of 0 drops even NaN."""
    scaled = _scaled(product, alpha)
    if beta == 0:
        return scaled
    return expand(_scaled(self, beta), tuple(scaled.shape)) + scaled


# -- products --------------------------------------------------------------------------------------


@composite("inner(Tensor self, Tensor other) -> Tensor", variants="function method out")
def inner(self, other):
    """Returns the sums of products over the last dimensions: ``(…, k), (…, k)``."""
    if self.ndim == 0 or other.ndim == 0:
        return self * other
    if self.shape[-1] != other.shape[-1]:
        raise RuntimeError(
            "inner() the last dimension must match on both input tensors but got shapes "
            f"{list(self.shape)} and {list(other.shape)}"
        )
    rows = matmul(reshape(self, (-1, self.shape[-1])), reshape(other, (-1, other.shape[-1])).t())
    return reshape(rows, (*self.shape[:-1], *other.shape[:-1]))


@composite("vdot(Tensor self, Tensor other) -> Tensor", variants="function method out")
def vdot(self, other):
    """Returns the dot product of two vectors (the first one conjugated)."""
    return dot(self, other)


@composite("kron(Tensor self, Tensor other) -> Tensor", variants="function method out")
def kron(self, other):
    """Returns the Kronecker product: every element of ``self`` times ``other``."""
    ndim = max(self.ndim, other.ndim)
    left = reshape(self, (1,) * (ndim - self.ndim) + tuple(self.shape))
    right = reshape(other, (1,) * (ndim - other.ndim) + tuple(other.shape))
    wide = reshape(left, tuple(n for s in left.shape for n in (s, 1)))
    tall = reshape(right, tuple(n for s in right.shape for n in (1, s)))
    sizes = tuple(a * b for a, b in zip(left.shape, right.shape, strict=True))
    return reshape(wide * tall, sizes)


@composite(
    "addr(Tensor self, Tensor vec1, Tensor vec2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
    variants="function method inplace out",
)
def addr(self, vec1, vec2, beta, alpha):
    """Returns ``beta * self + alpha * outer(vec1, vec2)``."""
    for position, vector in (("vec1", vec1), ("vec2", vec2)):
        if vector.ndim != 1:
            raise RuntimeError(f"addr: Expected 1-D argument {position}, but got {vector.ndim}-D")
    return _combined(self, unsqueeze(vec1, 1) * vec2, beta, alpha)


@composite(
    "addbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
    variants="function method inplace out",
)
def addbmm(self, batch1, batch2, beta, alpha):
    """Returns ``beta * self + alpha * sum of batch1[i] @ batch2[i]``."""
    product = to_dtype(sum_(bmm(batch1, batch2), (0,)), batch1.dtype)
    return _combined(self, product, beta, alpha)


@addbmm.derivative
def addbmm_backward(grad, batch1, batch2, beta, alpha):
    wide = expand(unsqueeze(grad, 0), (batch1.shape[0], *grad.shape))
    return {
        "self": grad * beta,
        "batch1": bmm(wide, transpose(batch2, 1, 2)) * alpha,
        "batch2": bmm(transpose(batch1, 1, 2), wide) * alpha,
    }


@composite("chain_matmul(Tensor[] matrices) -> Tensor", variants="")
def multi_dot(matrices):
    """Returns the product of several matrices, in the cheapest order."""
    if len(matrices) < 2:
        raise RuntimeError("multi_dot(): expected at least 2 tensors but got 1")
    first, last = matrices[0], matrices[-1]
    chain = [unsqueeze(first, 0) if first.ndim == 1 else first, *matrices[1:-1]]
    chain.append(unsqueeze(last, 1) if last.ndim == 1 else last)
    product = _product_of(chain, *_cheapest([t.shape[0] for t in chain] + [chain[-1].shape[1]]))
    lead = () if first.ndim == 1 else (first.shape[0],)
    tail = () if last.ndim == 1 else (last.shape[-1],)
    return reshape(product, (*lead, *tail))


def _cheapest(sizes: list[int]) -> tuple[dict[tuple[int, int], int], int, int]:
    """Where to split each part of a chain of matrices with those sizes."""
    count = len(sizes) - 1
    cost: dict[tuple[int, int], int] = {(k, k): 0 for k in range(count)}
    split: dict[tuple[int, int], int] = {}
    for length in range(1, count):
        for low in range(count - length):
            high = low + length
            cost[low, high], split[low, high] = min(
                (
                    cost[low, k] + cost[k + 1, high] + sizes[low] * sizes[k + 1] * sizes[high + 1],
                    k,
                )
                for k in range(low, high)
            )
    return split, 0, count - 1


def _product_of(
    chain: list[Tensor], split: dict[tuple[int, int], int], low: int, high: int
) -> Tensor:
    if low == high:
        return chain[low]
    k = split[low, high]
    return matmul(_product_of(chain, split, low, k), _product_of(chain, split, k + 1, high))


@composite("matrix_power(Tensor self, int n) -> Tensor", variants="function method out")
def matrix_power(self, n):
    """Returns the product of ``n`` times the square matrix."""
    if self.ndim < 2 or self.shape[-1] != self.shape[-2]:
        raise RuntimeError(
            "linalg.matrix_power: A must be batches of square matrices, but they are "
            f"{self.shape[-2] if self.ndim > 1 else 1} by {self.shape[-1]} matrices"
        )
    if n < 0:
        raise RuntimeError("matrix_power(): negative powers need torch.linalg.inv")
    size = self.shape[-1]
    if n == 0:
        return expand(eye(size, dtype=self.dtype), tuple(self.shape)).clone()
    result, square = None, self
    while n:
        if n & 1:
            result = square if result is None else matmul(result, square)
        n >>= 1
        square = matmul(square, square) if n else square
    return result.clone() if result is self else result


@composite("linalg_vecdot(Tensor self, Tensor other, int dim=-1) -> Tensor", variants="")
def vecdot(self, other, dim):
    """Returns the dot products of vectors along ``dim``."""
    return to_dtype(sum_(self * other, (dim,)), self.dtype)


@composite("linalg_vander(Tensor self, int? N=None) -> Tensor", variants="")
def vander(self, N):
    """Returns the powers 0 to ``N - 1`` of each element, along a last dimension."""
    if self.ndim == 0:
        self = unsqueeze(self, 0)
    count = self.shape[-1] if N is None else N
    if count <= 1 and N is not None:
        raise RuntimeError("N must be greater than 1.")
    powers = [ones(tuple(self.shape), dtype=self.dtype)]
    for _ in range(count - 1):
        powers.append(powers[-1] * self)
    return stack(powers, -1)


# -- norms and distances ---------------------------------------------------------------------------


@composite(
    'linalg_matrix_norm(Tensor self, any ord="fro", int[] dim=[-2,-1], bool keepdim=False, *, '
    "ScalarType? dtype=None) -> Tensor",
    variants="",
)
def matrix_norm(self, ord, dim, keepdim, dtype):
    """Returns the norm of matrices: ``"fro"``, 1, -1 (columns), inf or -inf (rows)."""
    if dtype is not None:
        self = to_dtype(self, dtype)
    if self.ndim < 2:
        raise RuntimeError(
            "linalg.matrix_norm: The input tensor A must have at least 2 dimensions."
        )
    if ord == "fro":
        return vector_norm(self, 2.0, dim, keepdim)
    if ord in ("nuc", 2, -2):
        raise NotImplementedError(f"linalg.matrix_norm of order {ord} needs singular values")
    if abs(ord) not in (1, numbers.inf):
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    rows, columns = (wrap_dim(d, self.ndim) for d in dim)
    summed, left = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = sum_(self.abs(), (summed,), keepdim)
    if not keepdim and left > summed:
        left -= 1
    return (amax if ord > 0 else amin)(sums, (left,), keepdim)


@composite(
    "linalg_norm(Tensor self, any ord=None, any dim=None, bool keepdim=False, *, "
    "ScalarType? dtype=None) -> Tensor",
    variants="",
)
def linalg_norm(self, ord, dim, keepdim, dtype):
    """Returns the norm of vectors or matrices, whichever the arguments mean."""
    dims = (dim,) if isinstance(dim, int) else None if dim is None else tuple(dim)
    if ord is None:
        return vector_norm(self, 2.0, dims, keepdim, dtype=dtype)
    if isinstance(ord, str) or (dims is None and self.ndim == 2) or len(dims or ()) == 2:
        return matrix_norm(self, ord, dims or (-2, -1), keepdim, dtype=dtype)
    if dims is None and self.ndim > 2:
        raise RuntimeError(
            "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
            f"{self.ndim}D."
        )
    return vector_norm(self, ord, dims, keepdim, dtype=dtype)


@composite(
    "pairwise_distance(Tensor x1, Tensor x2, float p=2, float eps=1e-06, bool keepdim=False) "
    "-> Tensor",
    variants="function",
)
def pairwise_distance(x1, x2, p, eps, keepdim):
    """Returns the norms of ``x1 - x2 + eps`` along the last dimension."""
    return vector_norm(x1 - x2 + eps, p, (-1,), keepdim)


@composite(
    "cosine_similarity(Tensor x1, Tensor x2, int dim=1, float eps=1e-08) -> Tensor",
    variants="function",
)
def cosine_similarity(x1, x2, dim, eps):
    """Returns the cosines of the angles between vectors along ``dim``."""
    shape = broadcast_shapes(x1.shape, x2.shape)
    x1, x2 = expand(x1, shape), expand(x2, shape)
    first = x1 / vector_norm(x1, 2.0, (dim,), True).clamp(min=eps)
    second = x2 / vector_norm(x2, 2.0, (dim,), True).clamp(min=eps)
    return sum_(first * second, (dim,))


@composite(
    "cdist(Tensor x1, Tensor x2, float p=2, any compute_mode=None) -> Tensor", variants="function"
)
def cdist(x1, x2, p, compute_mode):
    """Returns the distances of all pairs of rows: ``(…, m, k), (…, n, k) -> (…, m, n)``."""
    for name, tensor in (("X1", x1), ("X2", x2)):
        if tensor.ndim < 2:
            raise RuntimeError(
                f"cdist only supports at least 2D tensors, {name} got: {tensor.ndim}D"
            )
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(
            f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}"
        )
    if p < 0:
        raise RuntimeError("cdist only supports non-negative p values")
    if x1.shape[-1] == 0:
        return sum_(unsqueeze(x1, -2) - unsqueeze(x2, -3), (-1,))
    return vector_norm(unsqueeze(x1, -2) - unsqueeze(x2, -3), p, (-1,))


# -- samples ---------------------------------------------------------------------------------------


@inner.samples
def inner_samples(make):
    yield make(3), make(3)
    yield make(2, 3), make(4, 3)
    yield make(), make(2, 3)
    yield make(2, 3), make(2, 4)


@kron.samples
def kron_samples(make):
    yield make(2, 3), make(3, 2)
    yield make(3), make(2, 2)
    yield make(2, dtype="int64"), make(3, dtype="int64")


@addr.samples
def addr_samples(make):
    yield make(3, 4), make(3), make(4)
    yield make(3, 4), make(3), make(4), {"beta": 0.5, "alpha": 2}
    yield make(3, 4), make(3, 1), make(4)


@addbmm.samples
def addbmm_samples(make):
    yield make(3, 5), make(2, 3, 4), make(2, 4, 5)
    yield make(3, 5), make(2, 3, 4), make(2, 4, 5), {"beta": 0, "alpha": 2}


@matrix_power.samples
def matrix_power_samples(make):
    for n in (1, 2, 5):
        yield make(3, 3), n
    yield make(2, 3, 3), 3
    yield make(2, 3), 2


@cdist.samples
def cdist_samples(make):
    yield make(4, 3), make(5, 3)
    yield make(2, 4, 3), make(2, 5, 3), 1.0
    yield make(4, 3), make(5, 3), float("inf")
    yield make(4, 3), make(5, 2)


@cosine_similarity.samples
def cosine_similarity_samples(make):
    yield make(4, 3), make(4, 3)
    yield make(2, 4, 3), make(4, 3), {"dim": -1}


@pairwise_distance.samples
def pairwise_distance_samples(make):
    yield make(4, 3), make(4, 3)
    yield make(4, 3), make(3), {"p": 1.0, "keepdim": True}
