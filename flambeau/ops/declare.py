"""The kinds of operators and the decorators that declare them.

*pointwise*: a body over kernel values; *reduction*: a body and a combination; *view*: a rule
from layout to layout; *kernel*: a shape rule and a lowering to kernels of its own; *composite*:
ordinary code over tensors.  README.md in this folder is the guide for writing one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.compiler.kernel import Value
from flambeau.compiler.target import Target
from flambeau.core import dtype as types
from flambeau.core.dtype import dtype
from flambeau.core.layout import (
    Layout,
    broadcast_shapes,
    elementwise_strides,
)
from flambeau.core.scalar import default_dtype, result_type, scalar_dtype
from flambeau.engine.call import Call, Library, Lowered, Pointwise, Reduction, View
from flambeau.engine.tape import thread
from flambeau.graph import grad_mode, no_grad
from flambeau.ops import call as path
from flambeau.ops.destination import (
    check_no_overlap,
    check_out,
    check_overlap,
    check_writable,
    expand_shape,
    resize_out,
)
from flambeau.ops.operator import Operator
from flambeau.ops.schema import Schema, parse
from flambeau.tensor import Tensor, wrap_dim

Body = Callable[..., Any]


def operation_dtype(compute: dtype) -> dtype:
    """What a value of that type is computed in: half types in float32."""
    return types.float32 if compute in (types.float16, types.bfloat16) else compute


# -- promotion: from the common type of the operands to (computed in, result) ---------------------


def _to_float(common: dtype) -> dtype:
    return common if common.category in ("floating", "complex") else default_dtype()


PROMOTIONS: dict[str, Callable[[dtype], tuple[dtype, dtype]]] = {
    "common": lambda c: (c, c),
    "float": lambda c: (_to_float(c), _to_float(c)),
    "compare": lambda c: (c, types.bool_),
    "float_compare": lambda c: (_to_float(c), types.bool_),
    "logical": lambda c: (types.bool_, types.bool_),
}

_CASTABLE = {"bool": 0, "integer": 1, "floating": 2, "complex": 3}


def can_cast(source: dtype, target: dtype) -> bool:
    """Whether a result may be written into an existing tensor of another type."""
    if target is types.bool_:
        return source is types.bool_
    return _CASTABLE[source.category] <= _CASTABLE[target.category]


def common_dtype(operands: Sequence[Any], numbers: Sequence[type] = ()) -> dtype:
    """The promoted type of layouts and of types of Python numbers."""
    layouts = [o for o in operands if isinstance(o, Layout)]
    kinds = [o for o in (*operands, *numbers) if isinstance(o, type)]
    return result_type(
        [layout.dtype for layout in layouts if layout.ndim],
        [layout.dtype for layout in layouts if not layout.ndim],
        [scalar_dtype(k, default_dtype()) for k in kinds],
    )


def check_device(name: str, layouts: Sequence[Layout]) -> None:
    devices = {layout.device for layout in layouts if layout.ndim or len(layouts) == 1}
    if len(devices) > 1:
        first, second = sorted(map(str, devices))[:2]
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, "
            f"{first} and {second}!"
        )
    for layout in layouts:
        if layout.dtype.is_complex:
            raise NotImplementedError(f"\"{name}_cpu\" not implemented for '{layout.dtype.title}'")


def split_arguments(
    schema: Schema, values: Sequence[Any]
) -> tuple[list[Any], tuple[Any, ...], list[int | float]]:
    """Operands, static arguments, and the numbers passed at run time.

    A Python number in a tensor's place, and a ``Scalar`` that differs from its default, is a
    run-time number: its type stands in the call's key, its value does not.
    """
    operands: list[Any] = []
    static: list[Any] = []
    numbers: list[int | float] = []
    for p, value in zip(schema.parameters, values, strict=True):
        if p.is_tensor:
            if value is None or isinstance(value, Tensor):
                operands.append(value)
            else:
                operands.append(type(value))
                numbers.append(_check_number(schema.name, value))
        elif (
            p.is_number
            and value is not None
            and not (type(value) is type(p.default) and value == p.default)
        ):
            static.append(type(value))
            numbers.append(_check_number(schema.name, value))
        else:
            static.append(value)
    return operands, tuple(static), numbers


def _check_number(name: str, value: Any) -> int | float:
    if isinstance(value, complex):
        raise NotImplementedError(f"\"{name}_cpu\" not implemented for 'ComplexFloat'")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise OverflowError("int too big to convert")
    return value


class PointwiseOperator(Operator):
    """One result element per index of the broadcast shape.

    ``check(common, arguments)`` raises where the types do not do; ``arguments`` are layouts, types
    of numbers and other values in schema order.
    """

    # Whether methods and Python's operators may record a call without asking `record`.
    short_path = True
    # Whether the result is contiguous whatever the operands' strides are.
    contiguous_result = False

    def __init__(
        self,
        schema: Schema,
        body: Body,
        promote: str | Callable[[dtype], tuple[dtype, dtype]] = "common",
        promoting: str = "",
        untouched: str = "",
        check: Callable[[dtype, Sequence[Any]], None] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(schema, body, **more)
        self.promote = PROMOTIONS[promote] if isinstance(promote, str) else promote
        self.promoting = frozenset(promoting.split())
        self.untouched = frozenset(untouched.split())
        self.check = check
        self.results = len(schema.returns)
        self.default_static = tuple(p.default for p in schema.parameters if not p.is_tensor)

    def record(self, values: list[Any], out: Any = None, inplace: bool = False) -> Any:
        operands, static, numbers = self.split(values)
        if inplace:
            return self._record_inplace(values, operands, static, numbers)
        if out is not None:
            return self._record_out(values, operands, static, numbers, out)
        results = path.record(self, operands, static, numbers)
        if grad_mode.enabled and self.differentiable:
            inputs = [values[k] for k in self.tensor_positions]
            if path.needs_graph(inputs):
                path.attach(self, inputs, results, self.derivative_arguments(values))
        return results[0] if self.results == 1 else results

    def static_of(self, layout: Layout) -> tuple[Any, ...]:
        """The static arguments of a call with no argument but the operands."""
        return self.default_static

    def split(self, values: Sequence[Any]) -> tuple[list[Any], tuple[Any, ...], list[int | float]]:
        """What of the arguments the call's key holds and which numbers it gets; see
        `split_arguments`.
        """
        found = split_arguments(self.schema, values)
        if not any(isinstance(o, Tensor) for o in found[0]):
            got = ", ".join(type(v).__name__ for v in values if v is not None)
            raise TypeError(
                f"{self.name}() received an invalid combination of arguments - got ({got})"
            )
        return found

    def _record_inplace(
        self, values: list[Any], operands: list[Any], static: tuple[Any, ...], numbers: list[Any]
    ) -> Tensor:
        target: Tensor = values[0]
        inputs = [values[k] for k in self.tensor_positions]
        graph = path.check_inplace(target, inputs)
        self.check_destination(target, inputs)
        rule = self.derivative_rule
        wanted = [True if isinstance(t, Tensor) and t.requires_grad else None for t in inputs]
        saves_self = rule is not None and 0 in rule.saved_inputs and rule.keeps(0, wanted)
        if graph and saves_self and self.differentiable:
            inputs[0] = before_write(target)
        path.record(self, operands, static, numbers, (target,))
        if graph and self.differentiable:
            node = path.make_node(self, inputs, (target,), self.derivative_arguments(values))
            path.rebase(target, node)
        return target

    def check_destination(self, target: Tensor, inputs: Sequence[Any]) -> None:
        """PyTorch's errors for what cannot be written; layouts and storages alone decide."""
        check_writable(target)
        check_overlap(target, inputs)

    def _record_out(
        self,
        values: list[Any],
        operands: list[Any],
        static: tuple[Any, ...],
        numbers: list[Any],
        out: Any,
    ) -> Tensor:
        check_out(self.name, [values[k] for k in self.tensor_positions], out)
        layouts = [o._layout if isinstance(o, Tensor) else o for o in operands]
        check_writable(out)
        shape = self.shape(layouts)
        if out.shape != shape and any(o is out for o in operands):
            raise RuntimeError(
                f"output with shape {list(out.shape)} doesn't match the broadcast shape "
                f"{list(shape)}"
            )
        resize_out(out, shape)
        check_overlap(out, operands)
        path.record(self, operands, static, numbers, (out,))
        return out

    def shape(self, layouts: Sequence[Any]) -> tuple[int, ...]:
        return broadcast_shapes(*(layout.shape for layout in layouts if isinstance(layout, Layout)))

    def derivative_arguments(self, values: Sequence[Any]) -> dict[str, Any] | None:
        rule = self.derivative_rule
        if rule is None or not rule.arguments:
            return None
        names = [p.name for p in self.schema.parameters]
        return {name: values[names.index(name)] for name in rule.arguments}

    def build(self, key: tuple[Any, ...], first_slot: int) -> Call:
        """Infers shapes and types; raises PyTorch's errors."""
        _, slots, layouts, static, destinations = key
        present = [layout for layout in layouts if isinstance(layout, Layout)]
        check_device(self.name, present)
        shape = self.shape(layouts)
        compute, result = self._types(layouts, static)
        reads = tuple(
            View(slot, layout)
            for slot, layout in zip(slots, layouts, strict=True)
            if isinstance(layout, Layout)
        )
        if destinations:
            writes = tuple(View(slot, layout) for slot, layout in destinations)
            for view in writes:
                self._check_destination(view.layout, shape, result)
            outputs: tuple[Layout, ...] = ()
        else:
            strides = None if self.contiguous_result else elementwise_strides(shape, present)
            layout = Layout.of(shape, result, present[0].device, strides)
            outputs = (layout,) * self.results
            writes = tuple(View(first_slot + k, layout) for k in range(self.results))
        scalars = tuple(
            _number_kind(p) for p in self._in_order(layouts, static) if isinstance(p, type)
        )
        work = Pointwise(
            self._body(layouts, static, compute, tuple(w.layout.dtype for w in writes))
        )
        return Call(self.name, key, reads, writes, outputs, scalars, work)

    def _in_order(self, layouts: Sequence[Any], static: Sequence[Any]) -> list[Any]:
        """Layouts, number types and static values in schema order."""
        tensors, others = iter(layouts), iter(static)
        return [next(tensors) if p.is_tensor else next(others) for p in self.schema.parameters]

    def _types(self, layouts: Sequence[Any], static: Sequence[Any]) -> tuple[dtype, dtype]:
        ordered = self._in_order(layouts, static)
        taking_part = [
            value
            for p, value in zip(self.schema.parameters, ordered, strict=True)
            if (p.is_tensor and p.name not in self.untouched) or p.name in self.promoting
        ]
        taking_part = [
            type(v) if not isinstance(v, (Layout, type)) and v is not None else v
            for v in taking_part
        ]
        common = common_dtype(taking_part)
        if self.check is not None:
            self.check(common, ordered)
        return self.promote(common)

    def _check_destination(self, layout: Layout, shape: tuple[int, ...], result: dtype) -> None:
        if layout.shape != shape:
            raise RuntimeError(
                f"output with shape {list(layout.shape)} doesn't match the broadcast shape "
                f"{list(shape)}"
            )
        if not can_cast(result, layout.dtype):
            raise RuntimeError(
                f"result type {result.title} can't be cast to the desired output type "
                f"{layout.dtype.title}"
            )

    def _body(
        self,
        layouts: Sequence[Any],
        static: Sequence[Any],
        compute: dtype,
        results: tuple[dtype, ...],
    ) -> Callable[[Sequence[Any], Sequence[Value]], Sequence[Value]]:
        ordered = self._in_order(layouts, static)
        compute = operation_dtype(compute)
        parameters = self.schema.parameters

        def traced(inputs: Sequence[Value], scalars: Sequence[Value]) -> Sequence[Value]:
            loaded, numbers = iter(inputs), iter(scalars)
            arguments: list[Any] = []
            for p, value in zip(parameters, ordered, strict=True):
                if isinstance(value, Layout):
                    loaded_value = next(loaded)
                    keep = p.name in self.untouched
                    arguments.append(loaded_value if keep else loaded_value.cast(compute))
                elif isinstance(value, type):
                    arguments.append(next(numbers).cast(compute))
                else:
                    arguments.append(value)
            outcome = self.body(*arguments)
            outcomes = outcome if isinstance(outcome, tuple) else (outcome,)
            return [o.cast(d) for o, d in zip(outcomes, results, strict=True)]

        return traced


def _number_kind(kind: type) -> type:
    return float if kind is float else int


def before_write(tensor: Tensor) -> Tensor:
    """A copy in the tensor's place in the graph: what backward wants once it was written."""
    with no_grad():
        before = copy(tensor)
    before._requires_grad = tensor.requires_grad
    before._grad_fn, before._output_nr = tensor.grad_fn, tensor._output_nr
    return before


class _FreshOperator(Operator):
    """Operators whose ``out=`` and in-place forms compute a new tensor and copy it."""

    # Whether ``out=`` may share no memory with an input (PyTorch's rule for some operators).
    forbids_overlap = False

    def record(self, values: list[Any], out: Any = None, inplace: bool = False) -> Any:
        if inplace:
            return self._record_inplace(values)
        if out is None:
            return self.compute(values)
        outs = out if isinstance(out, (tuple, list)) else (out,)
        inputs = self.graph_inputs(values)
        for o in outs:
            check_out(self.name, inputs, o)
            if self.forbids_overlap:
                check_no_overlap(o, inputs)
        result = self.compute(values)
        results = result if isinstance(result, tuple) else (result,)
        for o, r in zip(outs, results, strict=True):
            if not can_cast(r.dtype, o.dtype):
                raise RuntimeError(
                    f"result type {r.dtype.title} can't be cast to the desired output type "
                    f"{o.dtype.title}"
                )
            resize_out(o, r.shape)
            check_writable(o)
            copy_(o, r)
        return type(result)(outs) if isinstance(result, tuple) else out

    def _record_inplace(self, values: list[Any]) -> Tensor:
        target: Tensor = values[0]
        graph = path.check_inplace(target, self.graph_inputs(values))
        rule = self.derivative_rule
        if graph and (rule is None or 0 in rule.saved_inputs):
            values = [before_write(target), *values[1:]]
        result: Tensor = self.compute(values)
        if not can_cast(result.dtype, target.dtype):
            raise RuntimeError(
                f"result type {result.dtype.title} can't be cast to the desired output type "
                f"{target.dtype.title}"
            )
        node = result._grad_fn
        if not graph or node is None or node.operator is not self:
            return copy_(target, result)
        # One node made the result: the written tensor gets that history.
        with no_grad():
            copy_(target, result)
        node.output_layouts = [target._layout]
        path.rebase(target, node)
        return target

    def compute(self, values: list[Any]) -> Any:
        raise AssertionError(f"{self.name} does not say how to compute")

    def derivative_arguments(self, values: Sequence[Any]) -> dict[str, Any] | None:
        rule = self.derivative_rule
        if rule is None or not rule.arguments:
            return None
        names = [p.name for p in self.schema.parameters]
        return {name: values[names.index(name)] for name in rule.arguments}

    def with_graph(self, values: list[Any], results: tuple[Tensor, ...]) -> Any:
        if grad_mode.enabled and self.differentiable:
            inputs = self.graph_inputs(values)
            if path.needs_graph(inputs):
                path.attach(self, inputs, results, self.derivative_arguments(values))
        return results[0] if len(self.schema.returns) == 1 else results

    def graph_inputs(self, values: list[Any]) -> list[Any]:
        if self.tensors_only:
            return values
        if not self.takes_lists:
            return [values[k] for k in self.tensor_positions]
        inputs: list[Any] = []
        for p, value in zip(self.schema.parameters, values, strict=True):
            if p.is_tensor:
                inputs.append(value)
            elif p.kind == "Tensor[]":
                inputs += value
        return inputs


class ReductionOperator(_FreshOperator):
    """Values combined over ``dim`` (one int, several, or None for all)."""

    def __init__(
        self,
        schema: Schema,
        body: Body,
        combine: str,
        promote: Callable[[dtype, dtype | None], tuple[dtype, dtype]],
        empty_ok: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(schema, body, **more)
        self.combine = tuple(combine.split())
        self.promote = promote
        self.empty_ok = empty_ok
        self.names = [p.name for p in schema.parameters]

    def compute(self, values: list[Any]) -> Any:
        tensor: Tensor = values[0]
        known = tensor._layout.views
        key = (self, *values[1:])
        static: Any = known.get(key)
        if static is None:
            static = known[key] = self._static_arguments(tensor._layout, values)
        results = path.record(self, (tensor,), static)
        return self.with_graph(values, results)

    def static_of(self, layout: Layout) -> tuple[Any, ...]:
        """The static arguments of a call with no argument but the tensor."""
        return self._static_arguments(layout, list(self.defaults.values()))

    def _static_arguments(self, layout: Layout, values: list[Any]) -> tuple[Any, ...]:
        """Dimensions, whether they are kept, and the other arguments; checked."""
        arguments = dict(zip(self.names[1:], values[1:], strict=True))
        dim = arguments.pop("dim", None)
        dims = reduced_dims(dim, layout.ndim)
        if not (self.empty_ok or layout.numel):
            self._check_not_empty(layout, dim, dims)
        keepdim = arguments.pop("keepdim", False)
        return (dims, keepdim, *arguments.values())

    def build(self, key: tuple[Any, ...], first_slot: int) -> Call:
        _, slots, (layout,), (dims, keepdim, *others), _ = key
        check_device(self.name, [layout])
        extra = [n for n in self.names if n not in ("self", "dim", "keepdim")]
        arguments = dict(zip(extra, others, strict=True))
        compute, result = self.promote(layout.dtype, arguments.pop("dtype", None))
        shape = reduced_shape(layout.shape, dims, keepdim)
        results = result if isinstance(result, tuple) else (result,)
        outputs = tuple(Layout.of(shape, r, layout.device) for r in results)
        writes = tuple(View(first_slot + k, o) for k, o in enumerate(outputs))
        index = index_layout(layout, dims)
        reads = (
            (View(slots[0], layout), View(-1, index))
            if self._indexed()
            else (View(slots[0], layout),)
        )

        def traced(inputs: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
            value = self.body(inputs[0].cast(compute), **arguments)
            outcome = value if isinstance(value, tuple) else (value,)
            return [*outcome, inputs[1]] if self._indexed() else outcome

        def finished(reduced: Sequence[Value], _: Sequence[Value]) -> Sequence[Value]:
            return [o.cast(r) for o, r in zip(reduced, results, strict=True)]

        work = Reduction(traced, self.combine, dims, finished)
        return Call(self.name, key, reads, writes, outputs, (), work)

    def _indexed(self) -> bool:
        return any(c.startswith("arg") for c in self.combine)

    def _check_not_empty(self, layout: Layout, dim: Any, dims: tuple[int, ...]) -> None:
        """PyTorch's errors for the extreme of nothing."""
        if dim is None or dim == ():
            text = f"{self.name}(): Expected reduction dim to be specified for input.numel() == 0."
            if self.name.startswith("arg"):
                raise IndexError(text)
            raise RuntimeError(f"{text} Specify the reduction dim with the 'dim' argument.")
        for d in dims:
            if layout.shape[d] == 0:
                raise IndexError(
                    f"{self.name}(): Expected reduction dim {d} to have non-zero size."
                )


def reduced_dims(dim: Any, ndim: int) -> tuple[int, ...]:
    """Sorted distinct dimensions; all for None or an empty list."""
    if dim is None or dim == ():
        return tuple(range(ndim))
    dims = [wrap_dim(d, ndim) for d in (dim if isinstance(dim, tuple) else (dim,))]
    for d in dims:
        if dims.count(d) > 1:
            raise RuntimeError(f"dim {d} appears multiple times in the list of dims")
    return tuple(sorted(d for d in dims if d < ndim))


def reduced_shape(shape: Sequence[int], dims: Sequence[int], keepdim: bool) -> tuple[int, ...]:
    if keepdim:
        return tuple(1 if d in dims else n for d, n in enumerate(shape))
    return tuple(n for d, n in enumerate(shape) if d not in dims)


def index_layout(layout: Layout, dims: Sequence[int]) -> Layout:
    """A running index over the reduced dimensions, row-major; constant along the others."""
    strides = [0] * layout.ndim
    step = 1
    for d in sorted(dims, reverse=True):
        strides[d] = step
        step *= layout.shape[d]
    return Layout.of(layout.shape, types.int64, layout.device, strides)


class KernelOperator(_FreshOperator):
    """Work with kernels of its own.  The body is the shape rule: layouts in, layouts out."""

    lowering: Callable[..., Lowered]

    def lower(self, rule: Callable[..., Lowered]) -> Callable[..., Lowered]:
        """Declares ``rule(call, target, *arguments) -> Lowered``; operands are
        ``call.reads/writes``.
        """
        self.lowering = rule
        return rule

    def compute(self, values: list[Any]) -> Any:
        if self.tensors_only:
            return self.with_graph(values, path.record(self, values, ()))
        operands: list[Any] = []
        static: list[Any] = []
        for p, value in zip(self.schema.parameters, values, strict=True):
            if p.is_tensor:
                operands.append(value)
            elif p.kind == "Tensor[]":
                operands += value
                static.append(len(value))
            else:
                static.append(value)
        return self.with_graph(values, path.record(self, operands, tuple(static)))

    def build(self, key: tuple[Any, ...], first_slot: int) -> Call:
        _, slots, layouts, static, _ = key
        check_device(self.name, [layout for layout in layouts if layout is not None])
        tensors, others = iter(layouts), iter(static)
        arguments: list[Any] = []
        for p in self.schema.parameters:
            if p.is_tensor:
                arguments.append(next(tensors))
            elif p.kind == "Tensor[]":
                arguments.append(tuple(next(tensors) for _ in range(next(others))))
            else:
                arguments.append(next(others))
        outcome = self.body(*arguments)
        outputs = outcome if isinstance(outcome, tuple) else (outcome,)
        reads = tuple(
            View(slot, layout)
            for slot, layout in zip(slots, layouts, strict=True)
            if layout is not None
        )
        writes = tuple(View(first_slot + k, o) for k, o in enumerate(outputs))
        call = Call(self.name, key, reads, writes, outputs, ())

        def lower(target: Target) -> Lowered:
            return self.lowering(call, target, *arguments)

        call.work = Library(lower)
        return call


class CompositeOperator(_FreshOperator):
    """Code over tensors.  With a derivative of its own it is one node, else its parts are nodes."""

    def record(self, values: list[Any], out: Any = None, inplace: bool = False) -> Any:
        if out is None and not inplace and self.derivative_rule is None and self.differentiable:
            return self.body(*values)
        return super().record(values, out, inplace)

    def compute(self, values: list[Any]) -> Any:
        if self.derivative_rule is None:
            if self.differentiable:
                return self.body(*values)
            with no_grad():
                return self.body(*values)
        with no_grad():
            result = self.body(*values)
        return self.with_graph(values, result if isinstance(result, tuple) else (result,))


# -- the decorators -------------------------------------------------------------------------------


def pointwise(
    schema: str, kind: type[PointwiseOperator] = PointwiseOperator, **options: Any
) -> Callable[[Body], PointwiseOperator]:
    """Declares a pointwise operator; options: ``promote promoting untouched check variants
    dunder``.
    """
    return lambda body: kind(parse(schema), body, **options)


def reduction(schema: str, **options: Any) -> Callable[[Body], ReductionOperator]:
    """Declares a reduction; options: ``combine promote empty_ok variants``."""
    return lambda body: ReductionOperator(parse(schema), body, **options)


def kernel_operator(schema: str, **options: Any) -> Callable[[Body], KernelOperator]:
    """Declares an operator with kernels of its own over its shape rule; see
    `KernelOperator.lower`.
    """
    return lambda body: KernelOperator(parse(schema), body, **options)


def composite(
    schema: str, *, differentiable: bool = True, **options: Any
) -> Callable[[Body], CompositeOperator]:
    """Declares an operator written in terms of others."""

    return lambda body: CompositeOperator(
        parse(schema), body, differentiable=differentiable, **options
    )


# -- copying: what the derived forms above rest on -------------------------------------------------


def _same(common: dtype) -> tuple[dtype, dtype]:
    return common, common


@pointwise("_copy(Tensor self) -> Tensor", variants="")
def copy_operator(self: Value) -> Value:
    return self


copy_operator.node_name = "CloneBackward0"
_copied = path.unary_form(copy_operator)


@copy_operator.derivative
def _copy_backward(grad: Tensor) -> dict[str, Any]:
    return {"self": grad}


class _CopyInto(PointwiseOperator):
    """``copy_``: any type converts, and the source broadcasts to the destination."""

    def shape(self, layouts: Sequence[Any]) -> tuple[int, ...]:
        destination, source = layouts
        if source.ndim <= destination.ndim:
            # Shapes of which neither expands to the other are named as in any operator.
            broadcast_shapes(destination.shape, source.shape)
        return expand_shape(source.shape, destination.shape)

    def build(self, key: tuple[Any, ...], first_slot: int) -> Call:
        _, slots, layouts, _, destinations = key
        check_device(self.name, layouts)
        self.shape(layouts)
        ((slot, layout),) = destinations
        read, write = View(slots[1], layouts[1]), View(slot, layout)
        work = Pointwise(lambda inputs, _: [inputs[0].cast(layout.dtype)])
        return Call(self.name, key, (read,), (write,), (), (), work)


copy_into = _CopyInto(
    parse("copy_(Tensor self, Tensor src, bool non_blocking=False) -> Tensor"),
    lambda self, src: src,
    variants="",
)


copy_into.node_name = "torch::autograd::CopyBackwards"


def copy(tensor: Tensor) -> Tensor:
    """A fresh tensor with the same elements (and the strides that a pointwise result has)."""
    return _copied(tensor)


def copy_(destination: Tensor, source: Tensor) -> Tensor:
    """Writes ``source`` into ``destination``, converting and broadcasting.  Returns the latter."""
    graph = path.check_inplace(destination, (destination, source))
    check_writable(destination)
    check_overlap(destination, (source,))
    path.record(copy_into, (destination, source), (False,), (), (destination,))
    if graph:
        node = path.make_node(copy_into, (destination, source), (destination,), None)
        path.rebase(destination, node)
    return destination


def pending_calls() -> int:
    """How many calls this thread has recorded and not run."""
    return len(thread.tape.recorded())
