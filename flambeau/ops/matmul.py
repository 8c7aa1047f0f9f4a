"""Matrix products: one kernel operator under all the spellings."""

from __future__ import annotations

import math

from flambeau.compiler.gemm import GemmProblem, plan_gemm
from flambeau.core import dtype as types
from flambeau.core.layout import Layout, broadcast_shapes
from flambeau.engine.call import Lowered
from flambeau.ops import call as path
from flambeau.ops.declare import composite, kernel_operator
from flambeau.ops.reduction import sum as sum_
from flambeau.ops.view import expand, reshape, squeeze, transpose, unsqueeze
from flambeau.ops.view_form import remember
from flambeau.tensor import Tensor, types_name


def same_dtype(name: str, a: Layout, b: Layout) -> None:
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"expected m1 and m2 to have the same dtype, but got: {_c_name(a)} != {_c_name(b)}"
        )
    refuse_bool(name, a)


def refuse_bool(name: str, layout: Layout) -> None:
    if layout.dtype is types.bool_:
        raise NotImplementedError(f"\"{name}_impl_cpu_\" not implemented for 'Bool'")


def _c_name(layout: Layout) -> str:
    return types_name(layout.dtype)


@kernel_operator("mm(Tensor self, Tensor mat2) -> Tensor", variants="function method out")
def mm(self, mat2):
    """Returns the product of two matrices: ``(n, m) @ (m, p) -> (n, p)``."""
    if self.ndim != 2:
        raise RuntimeError("self must be a matrix")
    if mat2.ndim != 2:
        raise RuntimeError("mat2 must be a matrix")
    check_inner("mat1 and mat2", self.shape, mat2.shape)
    same_dtype("addmm", self, mat2)
    return Layout.of((self.shape[0], mat2.shape[1]), self.dtype, self.device)


def check_inner(names: str, a, b) -> None:
    if a[1] != b[0]:
        raise RuntimeError(f"{names} shapes cannot be multiplied ({a[0]}x{a[1]} and {b[0]}x{b[1]})")


@mm.lower
def mm_lower(call, target, self, mat2):
    a, b = call.reads
    return lower_product(a, b, call.writes[0], target)


def lower_product(a, b, c, target, bias=None):
    """The steps of ``c = a @ b (+ bias)`` for views of two or three dimensions."""
    x, y, z = a.layout, b.layout, c.layout
    batched = z.ndim == 3
    problem = GemmProblem(
        dtype=z.dtype.name,
        batch=z.shape[0] if batched else 1,
        m=z.shape[-2],
        n=z.shape[-1],
        k=x.shape[-1],
        a_batch=x.strides[0] if batched else 0,
        a_row=x.strides[-2],
        a_col=x.strides[-1],
        b_batch=y.strides[0] if batched else 0,
        b_row=y.strides[-2],
        b_col=y.strides[-1],
        c_batch=z.strides[0] if batched else 0,
        c_row=z.strides[-2],
        c_col=z.strides[-1],
        bias=bias is not None,
    )
    plan = plan_gemm(problem, target)
    operands = {"a": a, "b": b, "c": c}
    if bias is not None:
        operands["bias"] = bias
    return Lowered(plan.steps, operands, plan.workspace, grid=plan.grid)


@mm.derivative
def mm_backward(grad, self, mat2, self_layout, mat2_layout, needs):
    gradients = {}
    if "self" in needs:
        gradients["self"] = product_like(self_layout, grad, transpose(mat2, 0, 1))
    if "mat2" in needs:
        gradients["mat2"] = product_like(mat2_layout, transpose(self, 0, 1), grad)
    return gradients


def product_like(layout: Layout, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` with the order of dimensions that ``layout`` has.

    A weight is multiplied as its transpose; its gradient then comes out laid out as the weight is.
    """
    rows, columns = layout.strides
    if rows == 1 and columns >= layout.shape[0] > 1:
        return transpose(mm(transpose(b, 0, 1), transpose(a, 0, 1)), 0, 1)
    return mm(a, b)


@mm.samples
def mm_samples(make):
    yield make(3, 4), make(4, 5)
    yield make(4, 3, transposed=True), make(4, 5)
    yield make(3, 4), make(5, 4, transposed=True)
    yield make(3, 0), make(0, 2)
    yield make(33, 17, dtype="float64"), make(17, 40, dtype="float64")
    yield make(3, 4, dtype="int64", low=-5, high=5), make(4, 2, dtype="int64", low=-5, high=5)
    yield make(3, 4), make(3, 4)
    yield make(3), make(3, 4)
    yield make(3, 4), make(4, 2, dtype="float64")


mm.saved_for(self="mat2", mat2="self")


@kernel_operator("bmm(Tensor self, Tensor mat2) -> Tensor", variants="function method out")
def bmm(self, mat2):
    """Returns the products of two stacks of matrices: ``(b, n, m) @ (b, m, p) -> (b, n, p)``."""
    if self.ndim != 3:
        raise RuntimeError("batch1 must be a 3D tensor")
    if mat2.ndim != 3:
        raise RuntimeError("batch2 must be a 3D tensor")
    if self.shape[0] != mat2.shape[0] or self.shape[2] != mat2.shape[1]:
        raise RuntimeError(
            "Expected size for first two dimensions of batch2 tensor to be: "
            f"[{self.shape[0]}, {self.shape[2]}] but got: [{mat2.shape[0]}, {mat2.shape[1]}]."
        )
    same_dtype("bmm", self, mat2)
    return Layout.of((self.shape[0], self.shape[1], mat2.shape[2]), self.dtype, self.device)


@bmm.lower
def bmm_lower(call, target, self, mat2):
    a, b = call.reads
    return lower_product(a, b, call.writes[0], target)


@bmm.derivative
def bmm_backward(grad, self, mat2):
    return {"self": bmm(grad, transpose(mat2, 1, 2)), "mat2": bmm(transpose(self, 1, 2), grad)}


@bmm.samples
def bmm_samples(make):
    yield make(2, 3, 4), make(2, 4, 5)
    yield make(1, 3, 4), make(1, 4, 1)
    yield make(2, 3, 4), make(3, 4, 5)
    yield make(3, 4), make(2, 4, 5)


bmm.saved_for(self="mat2", mat2="self")


@kernel_operator("_addmm_bias(Tensor bias, Tensor mat1, Tensor mat2) -> Tensor", variants="")
def addmm_bias(bias, mat1, mat2):
    check_inner("mat1 and mat2", mat1.shape, mat2.shape)
    if not (mat1.dtype is mat2.dtype is bias.dtype):
        raise RuntimeError(
            f"mat1 and mat2 must have the same dtype, but got {mat1.dtype.title} and "
            f"{mat2.dtype.title}"
            if mat1.dtype is not mat2.dtype
            else "self and mat2 must have the same dtype, but got "
            f"{bias.dtype.title} and {mat2.dtype.title}"
        )
    refuse_bool("addmm", mat1)
    return Layout.of((mat1.shape[0], mat2.shape[1]), mat1.dtype, mat1.device)


addmm_bias.node_name = "AddmmBackward0"


@addmm_bias.lower
def addmm_bias_lower(call, target, bias, mat1, mat2):
    row, a, b = call.reads
    return lower_product(a, b, call.writes[0], target, row)


@addmm_bias.derivative
def addmm_bias_backward(grad, mat1, mat2, mat1_layout, mat2_layout, needs):
    gradients = {"bias": grad}
    if "mat1" in needs:
        gradients["mat1"] = product_like(mat1_layout, grad, transpose(mat2, 0, 1))
    if "mat2" in needs:
        gradients["mat2"] = product_like(mat2_layout, transpose(mat1, 0, 1), grad)
    return gradients


addmm_bias.saved_for(mat1="mat2", mat2="mat1")


@composite("linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", variants="")
def linear(input, weight, bias):
    """Returns ``input @ weight.T + bias``: ``(*, in) , (out, in) -> (*, out)``."""
    operands = (input, weight) if bias is None else (bias, input, weight)
    if path.needs_graph(operands):
        return _linear_of_parts(input, weight, bias)
    layout = input._layout
    key = "linear", weight._layout, None if bias is None else bias._layout
    seen = layout.views.get(key)
    if seen is not None:
        return path.record_seen_as(mm if bias is None else addmm_bias, operands, *seen)
    result = _linear_of_parts(input, weight, bias)
    if weight.ndim == 2 and layout.is_contiguous and (bias is None or _fits(bias, weight)):
        rows = math.prod(layout.shape[:-1])
        flat = layout.view((rows, layout.shape[-1]), (layout.shape[-1], 1), layout.offset)
        layouts = (flat, transpose(weight, 0, 1)._layout)
        if bias is not None:
            layouts = (bias._layout, *layouts)
        remember(layout, key, (layouts, result._layout))
    return result


def _fits(bias: Tensor, weight: Tensor) -> bool:
    """Whether a bias is one number per row of the weight, in one piece."""
    layout = bias._layout
    return layout.ndim == 1 and layout.shape[0] == weight.shape[0] and layout.is_contiguous


def _linear_of_parts(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.ndim != 2:
        product = matmul(input, weight)
        return product if bias is None else product + bias
    out_features, in_features = weight.shape
    shape = input.shape
    if input.ndim == 0:
        raise RuntimeError(
            "both arguments to linear need to be at least 1D, but they are 0D and 2D"
        )
    flat = input if input.ndim == 2 else reshape(input, (math.prod(shape[:-1]), shape[-1]))
    transposed = transpose(weight, 0, 1)
    if bias is not None and _fits(bias, weight):
        result = addmm_bias(bias, flat, transposed)
    else:
        result = mm(flat, transposed)
        result = result if bias is None else result + bias
    return result if input.ndim == 2 else reshape(result, (*shape[:-1], out_features))


@linear.samples
def linear_samples(make):
    yield make(3, 4), make(5, 4), make(5)
    yield make(3, 4), make(5, 4)
    yield make(2, 3, 4), make(5, 4), make(5)
    yield make(4), make(5, 4), make(5)
    yield make(3, 4), make(5, 3), make(5)


@composite("mv(Tensor self, Tensor vec) -> Tensor", variants="function method out")
def mv(self, vec):
    """Returns the product of a matrix and a vector: ``(n, m) @ (m) -> (n)``."""
    if self.ndim != 2 or vec.ndim != 1:
        raise RuntimeError(
            f"vector + matrix @ vector expected, got {min(self.ndim, 1)}, {self.ndim}, {vec.ndim}"
        )
    if self.shape[1] != vec.shape[0]:
        raise RuntimeError(
            f"size mismatch, got input ({self.shape[0]}), mat ({self.shape[0]}x{self.shape[1]}), "
            f"vec ({vec.shape[0]})"
        )
    return squeeze(mm(self, unsqueeze(vec, 1)), (1,))


@mv.samples
def mv_samples(make):
    yield make(3, 4), make(4)
    yield make(3, 4), make(3)


@composite("dot(Tensor self, Tensor tensor) -> Tensor", variants="function method out")
def dot(self, tensor):
    """Returns the inner product of two vectors."""
    if self.ndim != 1 or tensor.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {self.ndim}D and {tensor.ndim}D tensors")
    if self.dtype is not tensor.dtype:
        raise RuntimeError(
            f"dot : expected both vectors to have same dtype, but found {self.dtype.title} and "
            f"{tensor.dtype.title}"
        )
    if self.shape != tensor.shape:
        raise RuntimeError(
            "inconsistent tensor size, expected tensor "
            f"[{self.shape[0]}] and src [{tensor.shape[0]}] to have the same number of elements, "
            "but "
            f"got {self.shape[0]} and {tensor.shape[0]} elements respectively"
        )
    return sum_(self * tensor)


@dot.samples
def dot_samples(make):
    yield make(5), make(5)
    yield make(0), make(0)
    yield make(5), make(4)
    yield make(2, 2), make(4)


@composite(
    "matmul(Tensor self, Tensor other) -> Tensor", variants="function method out", dunder="matmul"
)
def matmul(self, other):
    """Returns the matrix product, broadcasting all but the last two dimensions."""
    if self.ndim == 0 or other.ndim == 0:
        raise RuntimeError(
            "both arguments to matmul need to be at least 1D, but they are "
            f"{self.ndim}D and {other.ndim}D"
        )
    if self.ndim == 1 and other.ndim == 1:
        return dot(self, other)
    if self.ndim == 2 and other.ndim == 2:
        return mm(self, other)
    if self.ndim == 2 and other.ndim == 1:
        return mv(self, other)
    if self.ndim == 1:
        return squeeze(matmul(unsqueeze(self, 0), other), (-2,))
    if other.ndim == 1:
        return squeeze(matmul(self, unsqueeze(other, 1)), (-1,))
    return _batched(self, other)


@matmul.samples
def matmul_samples(make):
    yield make(4), make(4)
    yield make(3, 4), make(4)
    yield make(4), make(4, 3)
    yield make(3, 4), make(4, 5)
    yield make(2, 3, 4), make(4, 5)
    yield make(2, 3, 4), make(2, 4, 5)
    yield make(2, 1, 3, 4), make(3, 4, 2)
    yield make(2, 3, 4), make(4)
    yield make(3, 4), make(5, 2)
    yield make(), make(3)


def _batched(a: Tensor, b: Tensor) -> Tensor:
    if a.shape[-1] != b.shape[-2] and b.ndim == 2:
        check_inner("mat1 and mat2", (math.prod(a.shape[:-1]), a.shape[-1]), b.shape)
    if b.ndim == 2:
        product = mm(reshape(a, (math.prod(a.shape[:-1]), a.shape[-1])), b)
        return reshape(product, (*a.shape[:-1], b.shape[-1]))
    if a.ndim == b.ndim == 3 and a.shape[0] == b.shape[0]:
        return bmm(a, b)
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    count = math.prod(batch)
    left = reshape(expand(a, (*batch, *a.shape[-2:])), (count, *a.shape[-2:]))
    right = reshape(expand(b, (*batch, *b.shape[-2:])), (count, *b.shape[-2:]))
    return reshape(bmm(left, right), (*batch, a.shape[-2], b.shape[-1]))


@composite(
    "addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
    variants="function method inplace out",
)
def addmm(self, mat1, mat2, beta, alpha):
    """Returns ``beta * self + alpha * (mat1 @ mat2)``."""
    simple = beta == 1 and alpha == 1 and self.ndim == 1 and self._layout.is_contiguous
    if mat1.ndim != 2 or mat2.ndim != 2:
        raise RuntimeError(
            f"mat{1 if mat1.ndim != 2 else 2} must be a matrix, got "
            f"{(mat1 if mat1.ndim != 2 else mat2).ndim}-D tensor"
        )
    if simple and self.shape[0] == mat2.shape[1] and self.dtype is mat1.dtype:
        return addmm_bias(self, mat1, mat2)
    product = mm(mat1, mat2)
    return _scaled(product, alpha) if beta == 0 else _scaled(self, beta) + _scaled(product, alpha)


@addmm.derivative
def addmm_backward(grad, mat1, mat2, beta, alpha):
    scaled_grad = _scaled(grad, alpha)
    return {
        "self": _scaled(grad, beta),
        "mat1": mm(scaled_grad, transpose(mat2, 0, 1)),
        "mat2": mm(transpose(mat1, 0, 1), scaled_grad),
    }


addmm.saved_for(mat1="mat2", mat2="mat1")


@addmm.samples
def addmm_samples(make):
    yield make(3, 5), make(3, 4), make(4, 5)
    yield make(5), make(3, 4), make(4, 5)
    yield make(3, 5), make(3, 4), make(4, 5), {"beta": 0.5, "alpha": 2}
    yield make(3, 5), make(3, 4), make(4, 5), {"beta": 0}
    yield make(5), make(3, 4), make(3, 5)


def _scaled(tensor: Tensor, factor) -> Tensor:
    """The product; integers stay integers, as the factor becomes one."""
    if not tensor.dtype.is_floating_point:
        factor = int(factor)
    return tensor if factor == 1 else tensor * factor


@composite(
    "baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> "
    "Tensor",
    variants="function method inplace out",
)
def baddbmm(self, batch1, batch2, beta, alpha):
    """Returns ``beta * self + alpha * (batch1 @ batch2)``, batch by batch."""
    product = bmm(batch1, batch2)
    return _scaled(product, alpha) if beta == 0 else _scaled(self, beta) + _scaled(product, alpha)


@composite(
    "addmv(Tensor self, Tensor mat, Tensor vec, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
    variants="function method inplace out",
)
def addmv(self, mat, vec, beta, alpha):
    """Returns ``beta * self + alpha * (mat @ vec)``."""
    product = mv(mat, vec)
    return _scaled(product, alpha) if beta == 0 else _scaled(self, beta) + _scaled(product, alpha)


@composite(
    "outer(Tensor self, Tensor vec2) -> Tensor", variants="function method out", aliases="ger"
)
def outer(self, vec2):
    """Returns the outer product of two vectors: ``(n), (m) -> (n, m)``."""
    if self.ndim != 1 or vec2.ndim != 1:
        which, tensor = ("self", self) if self.ndim != 1 else ("vec2", vec2)
        raise RuntimeError(f"outer: Expected 1-D argument {which}, but got {tensor.ndim}-D")
    return unsqueeze(self, 1) * vec2


@outer.samples
def outer_samples(make):
    yield make(3), make(4)
    yield make(3, 2), make(4)


@baddbmm.samples
def baddbmm_samples(make):
    yield make(2, 3, 5), make(2, 3, 4), make(2, 4, 5)
    yield make(5), make(2, 3, 4), make(2, 4, 5), {"beta": 0.5, "alpha": 2}


@addmv.samples
def addmv_samples(make):
    yield make(3), make(3, 4), make(4)
    yield make(3), make(3, 4), make(4), {"beta": 2, "alpha": 0.5}
