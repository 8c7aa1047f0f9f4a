"""Methods, operators and in-place forms of ``Tensor``, attached from the operator declarations."""

from __future__ import annotations

import copy as copy_module
import warnings
from collections.abc import Callable
from typing import Any

import numpy

from flambeau import interchange, printing, storage, tensor_creation
from flambeau.autograd import engine as autograd
from flambeau.core import dtype as types
from flambeau.core.layout import Layout
from flambeau.core.memory_format import contiguous_format, strided
from flambeau.engine.storage import Storage
from flambeau.fields import new_tensor
from flambeau.graph import grad_mode
from flambeau.ops import (  # noqa: F401 - importing declares the operators
    activation,
    arrangement,
    attention,
    channels,
    clamp,
    classification_loss,
    closeness,
    combination,
    comparison,
    conversion,
    convolution,
    creation,
    declare,
    destination,
    distinct,
    embedding,
    exponential,
    extreme,
    fractional_pooling,
    indexing,
    joining,
    linear_algebra,
    loss,
    matmul,
    norm,
    normalization,
    numeric,
    pointwise,
    pooling,
    power,
    random,
    recurrence,
    reduction,
    rounding,
    scan,
    scatter_reduce,
    selection,
    sliding,
    sorting,
    special,
    transposed_convolution,
    trigonometry,
    view,
    view_copies,
    volume_convolution,
    volume_pooling,
)
from flambeau.ops.call import binary_form, record_inplace, unary_form
from flambeau.ops.declare import CompositeOperator, PointwiseOperator, ReductionOperator, copy_
from flambeau.ops.operator import OPERATORS, Operator
from flambeau.ops.schema import REQUIRED
from flambeau.ops.view_form import alias_form, view_form
from flambeau.ops.view_operator import ViewOperator
from flambeau.tensor import UNTRACKED, Tensor

_INT64_LIMIT = 1 << 63
_FOREIGN = (str, list, tuple, dict, type(None))


def _name(function: Callable[..., Any], name: str, doc: str | None) -> Callable[..., Any]:
    function.__name__ = name
    function.__qualname__ = f"Tensor.{name}"
    function.__doc__ = doc
    return function


def binary_method(op: Operator) -> Callable[..., Any]:
    pair = binary_form(op, lambda self, other: op.call_method((self, other), {}))

    def method(self: Tensor, other: Any, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs:
            return pair(self, other)
        if "out" in kwargs:
            return op(self, other, *args, **kwargs)
        return op.call_method((self, other, *args), kwargs)

    return method


def binary_dunder(op: Operator) -> Callable[..., Any]:
    """``__add__`` and its like."""
    return binary_form(op, _left_to_the_other(op))


def reduction_method(op: Operator) -> Callable[..., Any]:
    whole = unary_form(op)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs:
            return whole(self)
        if "out" in kwargs:
            return op(self, *args, **kwargs)
        return op.call_method((self, *args), kwargs)

    return method


def reflected_dunder(op: Operator) -> Callable[..., Any]:
    """``__radd__`` and its like, of commuting operators."""
    pair = binary_form(op, _left_to_the_other(op))

    def dunder(self: Tensor, other: Any) -> Any:
        return pair(other, self) if isinstance(other, Tensor) else pair(self, other)

    return dunder


def _left_to_the_other(op: Operator) -> Callable[[Tensor, Any], Any]:
    """What a Python operator does with an operand that is neither tensor nor plain number."""

    def otherwise(self: Tensor, other: Any) -> Any:
        try:
            return op.call_method((self, other), {})
        except TypeError:
            if isinstance(other, (*_FOREIGN, numpy.ndarray)) or not hasattr(other, "__float__"):
                return NotImplemented
            raise

    return otherwise


def general_method(op: Operator) -> Callable[..., Any]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            return op(self, *args, **kwargs)
        return op.call_method((self, *args), kwargs)

    return method


def inplace_method(op: Operator) -> Callable[..., Any]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return op.call_inplace((self, *args), kwargs)

    return method


def short_inplace_method(op: Operator) -> Callable[..., Any]:
    """`inplace_method` for two operands; outside of graphs it is recorded without a detour."""

    def method(self: Tensor, other: Any, *args: Any, **kwargs: Any) -> Any:
        # A view made without a graph (-1) may not be written with one: the detour checks.
        if not args and not kwargs and self._view_version != -1:
            if isinstance(other, Tensor):
                if not grad_mode.enabled or not (self.requires_grad or other.requires_grad):
                    return record_inplace(op, self, other)
            else:
                kind = other.__class__
                number = kind is float or (kind is int and -_INT64_LIMIT <= other < _INT64_LIMIT)
                if number and not (grad_mode.enabled and self.requires_grad):
                    return record_inplace(op, self, other)
        return op.call_inplace((self, other, *args), kwargs)

    return method


def general_dunder(op: Operator) -> Callable[..., Any]:
    """A Python operator of any kind; what it cannot take is left to the other operand."""
    only_tensors = all(p.kind == "Tensor" for p in op.schema.parameters)

    def dunder(self: Tensor, other: Any) -> Any:
        if isinstance(other, (*_FOREIGN, numpy.ndarray)):
            return NotImplemented
        if only_tensors and not isinstance(other, Tensor):
            return NotImplemented
        return op.call_method((self, other), {})

    return dunder


def inplace_dunder(op: Operator) -> Callable[..., Any]:
    def dunder(self: Tensor, other: Any) -> Any:
        return op.call_inplace((self, other), {})

    return dunder


def has_short_path(op: Operator) -> bool:
    return isinstance(op, PointwiseOperator) and op.results == 1 and op.short_path


def method_for(op: Operator) -> Callable[..., Any]:
    """The fastest form that the operator's parameters allow."""
    parameters = op.schema.parameters
    if has_short_path(op):
        tensors = [p for p in parameters if p.is_tensor]
        if len(parameters) == 1:
            op.short, op.short_arity = unary_form(op), 1
            return op.short
        others_have_defaults = all(p.default is not REQUIRED for p in parameters[2:])
        if len(tensors) == 2 and tensors[1].kind == "Operand" and others_have_defaults:
            op.short, op.short_arity = binary_method(op), 2
            return op.short
    if isinstance(op, ReductionOperator) and len(op.schema.returns) == 1:
        if all(p.default is not REQUIRED for p in parameters[1:]):
            return reduction_method(op)
    if isinstance(op, ViewOperator):
        return view_form(op)
    if isinstance(op, CompositeOperator) and op.schema.returns == ("Tensor(a)",):
        return alias_form(op)
    return general_method(op)


def writes_shortly(op: Operator) -> bool:
    """Whether `short_inplace_method` does for the operator."""
    kind = type(op)
    return (
        getattr(op, "short_arity", 0) == 2
        and kind.record is PointwiseOperator.record
        and kind._record_inplace is PointwiseOperator._record_inplace
    )


def inplace_method_for(op: Operator) -> Callable[..., Any]:
    return short_inplace_method(op) if writes_shortly(op) else inplace_method(op)


def attach_operators() -> None:
    """Gives ``Tensor`` every method that the declarations ask for."""
    for op in tuple(OPERATORS.values()):
        for name in (op.name, *op.aliases):
            if "method" not in op.variants:
                continue
            setattr(Tensor, name, _name(method_for(op), name, op.__doc__))
            if "inplace" in op.variants:
                doc = f"In-place version of :meth:`{name}`."
                setattr(Tensor, f"{name}_", _name(inplace_method_for(op), f"{name}_", doc))
        for name in op.dunder:
            _attach_dunder(op, name)


_COMMUTING = {"add", "mul", "and", "or", "xor"}
_COMPARING = {"eq", "ne", "lt", "le", "gt", "ge"}


def _attach_dunder(op: Operator, name: str) -> None:
    binary = sum(p.is_tensor for p in op.schema.parameters) >= 2
    forward = f"__{name}__"
    if not binary:
        setattr(Tensor, forward, _name(method_for(op), forward, op.__doc__))
        return
    function = binary_dunder(op) if has_short_path(op) else general_dunder(op)
    setattr(Tensor, forward, _name(function, forward, op.__doc__))
    if name in _COMMUTING:
        reflected = f"__r{name}__"
        setattr(Tensor, reflected, _name(reflected_dunder(op), reflected, op.__doc__))
    if "inplace" in op.variants and name not in _COMPARING:
        augmented = f"__i{name}__"
        function = short_inplace_method(op) if writes_shortly(op) else inplace_dunder(op)
        setattr(Tensor, augmented, _name(function, augmented, op.__doc__))


# -- what is not an operator ---------------------------------------------------------------------


def _construct(cls: type[Tensor], *args: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``torch.Tensor(2, 3)`` (sizes), ``torch.Tensor([1, 2])`` (data), ``torch.Tensor()``."""
    kind = declare.default_dtype()
    if not args:
        made = creation.empty_tensor((0,), kind)
    elif len(args) == 1 and isinstance(args[0], Tensor):
        made = view.view_as_is(args[0].detach())  # type: ignore[attr-defined]
    elif (
        len(args) == 1 and not isinstance(args[0], (int, Tensor)) and not hasattr(args[0], "numel")
    ):
        if isinstance(args[0], (float, complex)):
            title = type(args[0]).__name__
            raise TypeError(f"new(): data must be a sequence (got {title})")
        made = interchange.tensor_from_data(args[0], kind)
    else:
        sizes = args[0] if len(args) == 1 and isinstance(args[0], tuple) else args
        made = creation.empty_tensor(tuple(sizes), kind)
    return as_subclass(made, cls)


def as_subclass(tensor: Tensor, cls: type[Tensor]) -> Tensor:
    """The same tensor as an object of a subclass."""
    if cls is Tensor:
        return tensor
    result = new_tensor(cls)
    for slot in (
        "_storage", "_layout", "_requires_grad", "_grad", "_grad_fn", "_output_nr", "_base",
        "_view_version", "_hooks",
    ):  # fmt: skip
        setattr(result, slot, getattr(tensor, slot))
    return result


def _iterate(self: Tensor) -> Any:
    if self.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(joining.unbind(self, 0))


def _data(self: Tensor) -> Tensor:
    result = view.detach(self)
    result._view_version = UNTRACKED
    return result


def _set_data(self: Tensor, other: Tensor) -> None:
    """``x.data = other``: the memory changes hands, the place in the graph stays."""
    if not isinstance(other, Tensor):
        raise TypeError(f"Variable data has to be a tensor, but got {type(other).__name__}")
    if self.requires_grad and not other.dtype.is_differentiable:
        raise RuntimeError(
            "data set to a tensor that requires gradients must be floating point or complex dtype"
        )
    self._storage, self._layout = other._storage, other._layout


def _detach_(self: Tensor) -> Tensor:
    if self._base is not None:
        raise RuntimeError(
            "Can't detach views in-place. Use detach() instead. If you are using "
            "DistributedDataParallel "
            "(DDP) for training, and gradient_as_bucket_view is set as True, gradients are views "
            "of DDP "
            "buckets, and hence detach_() cannot be called on these gradients. To fix this error, "
            "please "
            "refer to the Optimizer.zero_grad() function in torch/optim/optimizer.py as the "
            "solution."
        )
    self._grad_fn, self._requires_grad, self._output_nr = None, False, 0
    return self


def _array(self: Tensor, dtype: Any = None, copy: Any = None) -> Any:
    array = interchange.to_numpy(self)
    if dtype is not None and array.dtype != dtype:
        return array.astype(dtype)
    return array.copy() if copy else array


def _wrapped(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
    """What numpy's functions return for a tensor: a tensor again."""
    return interchange.from_numpy(array)


def _number(kind: type) -> Callable[[Tensor], Any]:
    def convert(self: Tensor) -> Any:
        if self.numel() != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        if self.requires_grad:
            warnings.warn(
                "Converting a tensor with requires_grad=True to a scalar may lead to unexpected "
                "behavior.\nConsider using tensor.detach() first.",
                UserWarning,
                stacklevel=2,
            )
        return kind(interchange.item(self))

    return convert


def _inverted(self: Tensor) -> Tensor:
    """``~x``: every bit inverted."""
    if self.dtype.category not in ("integer", "bool"):
        raise TypeError(
            "~ (operator.invert) is only implemented on integer and Boolean-type tensors"
        )
    return comparison.bitwise_not(self)


def _flipped(self: Tensor) -> Tensor:
    """``reversed(x)``: the first dimension backwards."""
    return joining.flip(self, (0,)) if self.ndim else self


def _index(self: Tensor) -> int:
    if self.numel() != 1 or self.dtype.category not in ("integer", "bool"):
        raise TypeError("only integer tensors of a single element can be converted to an index")
    return int(interchange.item(self))


def _bool(self: Tensor) -> bool:
    if self.numel() != 1:
        raise RuntimeError(
            "Boolean value of Tensor with more than one value is ambiguous"
            if self.numel()
            else "Boolean value of Tensor with no values is ambiguous"
        )
    return bool(interchange.item(self))


def _format(self: Tensor, spec: str) -> str:
    if self.ndim == 0 and type(self) is Tensor:
        return format(interchange.item(self), spec)
    return object.__format__(self, spec)


def _reversed(self: Tensor) -> Tensor:
    """``x.T``: all dimensions in reverse."""
    if self.ndim == 0:
        _warn_of_identity("T")
    elif self.ndim != 2:
        warnings.warn(
            "The use of `x.T` on tensors of dimension other than 2 to reverse their shape is "
            "deprecated and it will throw an error in a future release. Consider `x.mT` to "
            "transpose batches of matrices or `x.permute(*torch.arange(x.ndim - 1, -1, -1))` to "
            "reverse the dimensions of a tensor.",
            UserWarning,
            stacklevel=2,
        )
    return view.permute(self, tuple(range(self.ndim))[::-1])


def _warn_of_identity(name: str) -> None:
    warnings.warn(
        f"Tensor.{name} is deprecated on 0-D tensors. This function is the identity in these "
        "cases.",
        UserWarning,
        stacklevel=3,
    )


def _matrices_transposed(self: Tensor) -> Tensor:
    """``x.mT``: the last two dimensions exchanged."""
    if self.ndim == 0:
        _warn_of_identity("mT")
        return self
    if self.ndim == 1:
        raise RuntimeError(
            "tensor.mT is only supported on matrices or batches of matrices. Got 1-D tensor."
        )
    return view.transpose(self, -2, -1)


def _adjoint(self: Tensor) -> Tensor:
    """``x.H``: the transposed matrix, which for real numbers is the adjoint."""
    if self.ndim == 0:
        _warn_of_identity("H")
    elif self.ndim != 2:
        raise RuntimeError(
            f"tensor.H is only supported on matrices (2-D tensors). Got {self.ndim}-D tensor."
            + (" For batches of matrices, consider using tensor.mH" if self.ndim > 2 else "")
        )
    return view.t(self)


def _imaginary(self: Tensor) -> Tensor:
    """``x.imag``: PyTorch's error, as there are no complex operators."""
    raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")


_reshaped = view_form(view.view)


def _view(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The same elements in another shape, or the same bytes as another type."""
    if len(args) == 1 and isinstance(args[0], types.dtype):
        return view.view_dtype(self, args[0])
    if "dtype" in kwargs:
        return view.view_dtype(self, kwargs["dtype"])
    return _reshaped(self, *args, **kwargs)


def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Changes the shape in place; elements beyond the old storage are undefined."""
    if self.requires_grad:
        raise RuntimeError("cannot resize variables that require grad")
    destination.resize(self, creation.sizes_of("resize_", sizes))
    return self


def set_(self: Tensor, source: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    """Makes this tensor share the source's storage, shape and strides."""
    if source is None:
        source = creation.empty_tensor((0,), self.dtype)
    if isinstance(source, Tensor):
        self._storage, self._layout = source._storage, source._layout
        return self
    offset, size, stride = (
        args if len(args) == 3 else (0, (source.nbytes() // self.itemsize,), (1,))
    )
    self._storage = (
        source._untyped_storage._storage if hasattr(source, "_untyped_storage") else source._storage
    )
    self._layout = Layout.of(tuple(size), self.dtype, self.device, tuple(stride), offset)
    return self


def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
    """Whether the elements lie in row-major order without gaps."""
    if memory_format is None or memory_format is contiguous_format:
        return self._layout.is_contiguous
    if self.ndim != 4:
        return False
    n, c, h, w = self.shape
    return self._layout.strides == (h * w * c, 1, w * c, c)


def deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """``copy.deepcopy``: leaves only; shared memory stays shared within one copy."""
    if self.grad_fn is not None:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol "
            "at the moment.  If you were attempting to deepcopy a module, this may be because of a "
            "torch.nn.utils.weight_norm usage, see https://github.com/pytorch/pytorch/pull/103001"
        )
    if id(self) in memo:
        found: Tensor = memo[id(self)]
        return found
    storage = memo.get(id(self._storage))
    if storage is None:
        storage = Storage(self._storage.nbytes, self._storage.device)
        if self.device.type != "meta" and storage.nbytes:
            storage.memory()[:] = self._storage.memory()
        memo[id(self._storage)] = storage
    result = as_subclass(Tensor._from_storage(storage, self._layout), type(self))
    result._requires_grad = self._requires_grad
    memo[id(self)] = result
    if self._grad is not None:
        result._grad = deepcopy(self._grad, memo)
    for name, value in self.__dict__.items():
        setattr(result, name, copy_module.deepcopy(value, memo))
    return result


def contains(self: Tensor, element: Any) -> bool:
    """``x in tensor``: whether any element equals it."""
    if isinstance(element, (Tensor, int, float, bool, complex)):
        return bool((self == element).any().item())  # type: ignore[attr-defined]
    raise RuntimeError(
        f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}."
    )


def attach_protocols() -> None:
    """Gives ``Tensor`` what needs more than one operator."""
    Tensor._construct = staticmethod(_construct)
    Tensor._rebuild_view_grad_fn = staticmethod(view.rebuild_view_grad_fn)
    Tensor._format = staticmethod(printing.tensor_repr)
    methods: dict[str, Any] = {
        "item": interchange.item,
        "tolist": interchange.to_list,
        "numpy": interchange.to_numpy,
        "detach": view.detach,
        "detach_": _detach_,
        "backward": autograd.tensor_backward,
        "copy_": lambda self, src, non_blocking=False: copy_(self, src),
        "__array__": _array,
        "__dlpack__": interchange.to_dlpack,
        "__dlpack_device__": lambda self: (1, 0),
        "__array_wrap__": _wrapped,
        "__float__": _number(float),
        "__int__": _number(int),
        "__complex__": _number(complex),
        "__reversed__": _flipped,
        "__invert__": _inverted,
        "__index__": _index,
        # numpy's numbers leave an operator with a tensor to the tensor.
        "__array_priority__": 1000,
        "__bool__": _bool,
        "__format__": _format,
        "__iter__": _iterate,
        "as_subclass": as_subclass,
        "to": conversion.to,
        "type": conversion.tensor_type,
        "type_as": conversion.type_as,
        "clone": conversion.clone,
        "cpu": conversion.cpu,
        "cuda": conversion.cuda,
        "fill_": creation.fill_,
        "zero_": creation.zero_,
        "resize_": resize_,
        "resize_as_": lambda self, other, memory_format=None: resize_(self, other.shape),
        "set_": set_,
        "is_contiguous": is_contiguous,
        "expand_as": lambda self, other: view.expand(self, other.shape),
        "view": _view,
        "view_as": lambda self, other: view.view(self, other.shape),
        "reshape_as": lambda self, other: view.reshape(self, other.shape),
        "__deepcopy__": deepcopy,
        "__contains__": contains,
        **conversion.SHORT_METHODS,
        **creation.NEW_METHODS,
        **random.METHODS,
        **indexing.METHODS,
        **joining.METHODS,
        **arrangement.METHODS,
        **storage.METHODS,
        **tensor_creation.METHODS,
    }
    for name, function in methods.items():
        setattr(Tensor, name, function)
    Tensor.data = property(_data, _set_data)  # type: ignore[attr-defined]
    Tensor.T = property(_reversed)  # type: ignore[attr-defined]
    Tensor.mT = property(_matrices_transposed)  # type: ignore[attr-defined]
    Tensor.real = property(lambda self: self)  # type: ignore[attr-defined]
    Tensor.imag = property(_imaginary)  # type: ignore[attr-defined]
    Tensor.H = property(_adjoint)  # type: ignore[attr-defined]
    Tensor.layout = strided  # type: ignore[attr-defined]


attach_operators()
attach_protocols()
__all__ = ["Layout", "Storage", "attach_operators", "attach_protocols", "types"]
