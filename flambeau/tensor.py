"""``torch.Tensor``: a strided view of a storage, with its place in the autograd graph.

Methods that compute are operators; `bindings.py` attaches them.  Here is what a tensor *is*:
its fields, the attributes that read them, and Python's protocols.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from flambeau.core import dtype as types
from flambeau.core.device import device
from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout, Size
from flambeau.engine.storage import Storage
from flambeau.fields import TensorFields, new_tensor
from flambeau.graph import AccumulateGrad, Node, RemovableHandle, grad_mode

if TYPE_CHECKING:
    from collections.abc import Callable


class TensorHooks:
    """What only few tensors have: hooks, and the wish to keep a non-leaf's gradient.

    ``before`` and ``after`` are the hooks of a leaf's `AccumulateGrad`, ``node`` a weak reference
    to that.  A non-leaf's hooks stay with the node that made it when it is written in place.
    """

    __slots__ = ("accumulated", "after", "before", "gradient", "node", "retains_grad")

    def __init__(self) -> None:
        self.gradient: dict[int, Callable[..., Any]] = {}
        self.accumulated: dict[int, Callable[..., Any]] = {}
        self.before: dict[int, Callable[..., Any]] = {}
        self.after: dict[int, Callable[..., Any]] = {}
        self.node: weakref.ref[AccumulateGrad] | None = None
        self.retains_grad = False


class TensorMeta(type):
    """Lets ``isinstance`` answer for the typed aliases such as ``torch.FloatTensor``."""


class Tensor(TensorFields, metaclass=TensorMeta):
    """A multi-dimensional array of one type.

    ``_base`` is the tensor that this one is a view of; ``_view_version`` its storage's version when
    ``_grad_fn`` was last right (an in-place write through another view makes it stale).
    """

    __slots__ = ("__dict__", "__weakref__")
    _storage: Storage
    _layout: Layout
    _requires_grad: bool
    _output_nr: int
    _view_version: int
    _grad: Tensor | None
    _grad_fn: Node | None
    _base: Tensor | None
    _hooks: TensorHooks | None

    # Set by bindings.py: what needs operators, which lie above this module.
    _construct: ClassVar[Callable[..., Tensor]]
    _rebuild_view_grad_fn: ClassVar[Callable[[Tensor], Node | None]]
    _format: ClassVar[Callable[..., str]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:
        return cls._construct(cls, *args, **kwargs)

    @staticmethod
    def _from_storage(storage: Storage, layout: Layout) -> Tensor:
        """A new tensor outside any graph."""
        self = new_tensor(Tensor)
        self._storage = storage
        self._layout = layout
        self._requires_grad = False
        self._grad = None
        self._grad_fn = None
        self._output_nr = 0
        self._base = None
        self._view_version = 0
        self._hooks = None
        return self

    @staticmethod
    def _make_subclass(cls: type[Tensor], data: Tensor, require_grad: bool = False) -> Tensor:
        """A leaf of class ``cls`` on the memory of ``data``."""
        category = data._layout.dtype.category
        if require_grad and category not in ("floating", "complex"):
            raise RuntimeError(
                "Only Tensors of floating point and complex dtype can require gradients"
            )
        self = new_tensor(cls)
        self._storage = data._storage
        self._layout = data._layout
        self._requires_grad = bool(require_grad)
        self._grad = None
        self._grad_fn = None
        self._output_nr = 0
        self._base = None
        self._view_version = 0
        self._hooks = None
        return self

    # -- shape and type ------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        return self._layout.shape

    @property
    def dtype(self) -> dtype:
        return self._layout.dtype

    @property
    def device(self) -> device:
        return self._layout.device

    @property
    def ndim(self) -> int:
        return self._layout.ndim

    @property
    def itemsize(self) -> int:
        return self._layout.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._layout.numel * self._layout.dtype.itemsize

    def size(self, dim: int | None = None) -> Size | int:
        """The shape, or its entry ``dim``."""
        if dim is None:
            return self._layout.shape
        return int(self._layout.shape[wrap_dim(dim, self._layout.ndim)])

    def stride(self, dim: int | None = None) -> tuple[int, ...] | int:
        if dim is None:
            return self._layout.strides
        return self._layout.strides[wrap_dim(dim, self._layout.ndim)]

    def dim(self) -> int:
        return self._layout.ndim

    ndimension = dim

    def numel(self) -> int:
        return self._layout.numel

    nelement = numel

    def element_size(self) -> int:
        return self._layout.dtype.itemsize

    def storage_offset(self) -> int:
        return self._layout.offset

    def is_floating_point(self) -> bool:
        return self._layout.dtype.is_floating_point

    def is_complex(self) -> bool:
        return self._layout.dtype.is_complex

    def is_signed(self) -> bool:
        return self._layout.dtype.is_signed

    def get_device(self) -> int:
        """The index of the CUDA device; -1 on the CPU."""
        index = self._layout.device.index
        return -1 if index is None else index

    @property
    def is_cpu(self) -> bool:
        return self._layout.device.type == "cpu"

    @property
    def is_cuda(self) -> bool:
        return self._layout.device.type == "cuda"

    @property
    def is_meta(self) -> bool:
        return self._layout.device.type == "meta"

    is_sparse = is_quantized = is_mkldnn = is_mps = is_xla = is_nested = is_xpu = is_ipu = False
    is_sparse_csr = is_vulkan = is_mtia = is_maia = False

    # -- storage -------------------------------------------------------------------------------

    def data_ptr(self) -> int:
        """The address of the first element; completes the storage first."""
        layout = self._layout
        if layout.numel == 0:
            return 0
        return self._storage.ready() + layout.offset * layout.dtype.itemsize

    def _is_view(self) -> bool:
        """Whether autograd knows this tensor as a view of another one."""
        return self._base is not None

    @property
    def _version(self) -> int:
        return self._storage.version

    def is_set_to(self, tensor: Tensor) -> bool:
        """Whether both are the same view of the same memory."""
        return self._storage is tensor._storage and self._layout is tensor._layout

    # -- autograd ------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad or (self._base is not None and self.grad_fn is not None)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Says whether operations on this leaf are recorded.  Returns ``self``."""
        if not self.is_leaf and not requires_grad:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a "
                "computed variable in a subgraph that doesn't require differentiation use "
                "var_no_grad = var.detach()."
            )
        if requires_grad and self._layout.dtype.category not in ("floating", "complex"):
            raise RuntimeError("only Tensors of floating point dtype can require gradients")
        if self._grad_fn is None:
            self._requires_grad = bool(requires_grad)
        return self

    @property
    def is_leaf(self) -> bool:
        return self.grad_fn is None

    @property
    def grad_fn(self) -> Node | None:
        """The node that made this tensor; None for leaves."""
        base = self._base
        if base is not None and self._view_version != self._storage.version:
            self._grad_fn = Tensor._rebuild_view_grad_fn(self)
        node = self._grad_fn
        return node.named() if node.__class__ is Node else node

    @property
    def output_nr(self) -> int:
        return self._output_nr

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient of a leaf (or of a tensor that retains it)."""
        if self._grad is None and self._grad_fn is not None and not self.retains_grad:
            warn_non_leaf_grad()
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            check_assigned_grad(self, value)
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def retains_grad(self) -> bool:
        return self._hooks is not None and self._hooks.retains_grad

    def retain_grad(self) -> None:
        """Makes a non-leaf keep its ``grad`` after backward."""
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if self.grad_fn is not None:
            self._own_hooks().retains_grad = True
            self._watch()

    def _own_hooks(self) -> TensorHooks:
        node = self.grad_fn
        watched = None if node is None else (node.metadata or {}).get("tensors", {})
        if self._hooks is None or (watched is not None and self._output_nr not in watched):
            self._hooks = TensorHooks()
        return self._hooks

    def _follow_write(self) -> None:
        """After a write in place: the former node keeps the hooks, the wish for ``grad`` moves."""
        hooks = self._hooks
        if hooks is not None and hooks.retains_grad:
            hooks.retains_grad = False
            self._own_hooks().retains_grad = True
            self._watch()

    def _accumulate_node(self) -> AccumulateGrad:
        """The end of the graph that this leaf is."""
        hooks = self._own_hooks()
        node = None if hooks.node is None else hooks.node()
        if node is None:
            node = AccumulateGrad(self)
            hooks.node = weakref.ref(node)
        return node

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Calls ``hook(grad)`` when this tensor's gradient is known; it may return another one."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        handle = RemovableHandle(self._own_hooks().gradient, hook)
        self._watch()
        return handle

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Calls ``hook(self)`` after this leaf's ``grad`` was updated."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self._grad_fn is not None:
            raise RuntimeError(
                "post accumulate grad hooks cannot be registered on non-leaf tensors"
            )
        return RemovableHandle(self._own_hooks().accumulated, hook)

    def _watch(self) -> None:
        """Makes this tensor's node find its hooks; a leaf is its own end of the graph."""
        node = self.grad_fn
        if node is not None:
            if node.metadata is None:
                node.metadata = {}
            node.metadata.setdefault("tensors", {})[self._output_nr] = (
                self._hooks,
                weakref.ref(self),
            )

    # -- Python's protocols --------------------------------------------------------------------

    def __len__(self) -> int:
        if self._layout.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return int(self._layout.shape[0])

    __hash__ = object.__hash__

    def __repr__(self, *, tensor_contents: str | None = None) -> str:
        return Tensor._format(self)


# The `_view_version` of ``x.data`` and its views: writing there changes nobody's version.
UNTRACKED = -3


def wrap_dim(dim: int, ndim: int) -> int:
    """A non-negative dimension number; PyTorch's error outside the range."""
    limit = max(ndim, 1)
    if not -limit <= dim < limit:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got "
            f"{dim})"
        )
    return dim + limit if dim < 0 else dim


def warn_non_leaf_grad() -> None:
    import warnings

    warnings.warn(
        "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad "
        "attribute won't be populated during autograd.backward(). If you indeed want the .grad "
        "field to be populated for a non-leaf Tensor, use .retain_grad() on the non-leaf Tensor. "
        "If you access the non-leaf Tensor by mistake, make sure you access the leaf Tensor "
        "instead. See github.com/pytorch/pytorch/pull/30531 for more information.",
        UserWarning,
        stacklevel=3,
    )


def check_assigned_grad(tensor: Tensor, grad: Tensor) -> None:
    """PyTorch's checks of ``tensor.grad = grad``."""
    if not isinstance(grad, Tensor):
        raise TypeError(
            "assigned grad expected to be a Tensor or None but got grad of type "
            f"{type(grad).__name__}"
        )
    if grad is tensor:
        raise RuntimeError("can't assign Variable as its own grad")
    if grad.dtype is not tensor.dtype:
        raise RuntimeError(
            f"attempting to assign a gradient with dtype '{types_name(grad.dtype)}' to a tensor "
            f"with grad_dtype '{tensor.dtype.title}'. The gradient must match the tensor's "
            "grad_dtype (defaults to the tensor's dtype). You can set the tensor's grad_dtype "
            "attribute with a specific dtype, or None to allow any dtype. Set grad_dtype with "
            "caution. Diverging the dtypes of a tensor and its gradient may break downstream "
            "systems that assume they match."
        )
    if grad.shape != tensor.shape:
        raise RuntimeError(
            f"attempting to assign a gradient of size '{list(grad.shape)}' to a tensor of size "
            f"'{list(tensor.shape)}'. Please ensure that the gradient and the tensor are the same "
            "size"
        )


def types_name(dtype: types.dtype) -> str:
    """How C++ names a type in error texts: ``float``, ``double``, ``long int``."""
    return {
        "float32": "float", "float64": "double", "int64": "long int", "int32": "int",
        "int16": "short int", "int8": "signed char", "uint8": "unsigned char",
        "float16": "c10::Half", "bfloat16": "c10::BFloat16", "bool": "bool",
        "complex64": "c10::complex<float>", "complex128": "c10::complex<double>",
    }[dtype.name]  # fmt: skip


__all__ = ["Tensor", "TensorHooks", "grad_mode", "wrap_dim"]
