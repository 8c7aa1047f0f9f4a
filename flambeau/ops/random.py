"""Random tensors: drawn at once, in PyTorch's order, from PyTorch's generator.

Drawing at record time keeps the generator's state moving exactly as PyTorch's does; what is
computed from the numbers is recorded as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core import dtype as types
from flambeau.core.dtype import dtype
from flambeau.core.layout import Layout, is_dense, may_overlap_itself
from flambeau.engine import generator as draws
from flambeau.engine.generator import Generator
from flambeau.engine.random_bounds import random_bounds
from flambeau.engine.storage import Storage
from flambeau.engine.watch import host_action
from flambeau.graph import no_grad
from flambeau.ops import call as path
from flambeau.ops.creation import (
    ZeroHistory,
    empty_tensor,
    finish,
    like_layout,
    sizes_of,
    target_device,
)
from flambeau.ops.declare import copy_, default_dtype
from flambeau.ops.destination import check_writable
from flambeau.tensor import UNTRACKED, Tensor

Fill = Callable[..., None]


def draw_into(tensor: Tensor, fill: Fill, generator: Generator | None, *arguments: Any) -> Tensor:
    """Fills a tensor in place; a strided one is filled in its order of memory, as PyTorch does."""
    graph = path.check_inplace(tensor, (tensor,))
    check_writable(tensor)
    _draw(tensor, fill, generator, arguments)
    if graph:
        path.rebase(tensor, path.make_node(_HISTORIES[fill], (tensor,), (tensor,), None))
    return tensor


_HISTORIES = {
    fill: ZeroHistory(f"{fill.__name__.removeprefix('fill_').title().replace('_', '')}Backward0")
    for fill in (
        draws.fill_uniform,
        draws.fill_normal,
        draws.fill_bernoulli,
        draws.fill_random,
        draws.fill_randint,
        draws.fill_exponential,
        draws.fill_cauchy,
        draws.fill_log_normal,
        draws.fill_geometric,
    )
}


@host_action
def _draw(
    tensor: Tensor, fill: Fill, generator: Generator | None, arguments: Sequence[Any]
) -> None:
    layout = tensor._layout
    storage = tensor._storage
    if not is_dense(layout) or may_overlap_itself(layout):
        order = sorted(range(layout.ndim), key=lambda d: (-layout.strides[d], d))
        shape = tuple(layout.shape[d] for d in order)
        dense = empty_tensor(shape, layout.dtype)
        options = {"contiguous": False} if fill is draws.fill_normal else {}
        fill(generator, dense._storage.ready(), layout.numel, layout.dtype, *arguments, **options)
        back = Tensor._from_storage(
            storage,
            layout.view(shape, tuple(layout.strides[d] for d in order), layout.offset),
        )
        with no_grad():
            copy_(back, dense)
        return
    address = storage.ready() + layout.offset * layout.dtype.itemsize
    options = {} if layout.is_contiguous or fill is not draws.fill_normal else {"contiguous": False}
    fill(generator, address, layout.numel, layout.dtype, *arguments, **options)
    if tensor._view_version != UNTRACKED:
        storage.version += 1


@host_action
def _fresh(
    shape: Any, kind: dtype, fill: Fill, generator: Generator | None, *arguments: Any
) -> Tensor:
    tensor = empty_tensor(shape, kind)
    if tensor.numel():
        fill(generator, tensor._storage.ready(), tensor.numel(), kind, *arguments)
    return tensor


def _check_float(name: str, kind: dtype) -> None:
    if not kind.is_floating_point:
        raise NotImplementedError(f"\"{name}\" not implemented for '{kind.title}'")


def _creator(name: str, fill: Fill, kernel: str, doc: str) -> Callable[..., Tensor]:
    def create(
        *size: Any,
        generator: Generator | None = None,
        out: Tensor | None = None,
        dtype: dtype | None = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        pin_memory: bool = False,
        names: Any = None,
    ) -> Tensor:
        target_device(device)
        kind = dtype or (out.dtype if out is not None else default_dtype())
        _check_float(kernel, kind)
        return finish(
            _fresh(sizes_of(name, size or ((),)), kind, fill, generator), requires_grad, out
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = doc
    return create


rand = _creator(
    "rand", draws.fill_uniform, "check_uniform_bounds", "Returns uniform numbers from [0, 1)."
)
randn = _creator(
    "randn",
    draws.fill_normal,
    "normal_kernel_cpu",
    "Returns normal numbers with mean 0 and variance 1.",
)


def _like(fill: Fill, name: str, kernel: str) -> Callable[..., Tensor]:
    def create(
        input: Tensor,
        *,
        generator: Generator | None = None,
        dtype: dtype | None = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        memory_format: Any = None,
        pin_memory: bool = False,
    ) -> Tensor:
        made = like_layout(input, dtype)
        _check_float(kernel, made.dtype)
        tensor = Tensor._from_storage(Storage(made.nbytes), made)
        return finish(draw_into(tensor, fill, generator), requires_grad)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"``{name.removesuffix('_like')}`` with the shape and type of ``input``."
    return create


rand_like = _like(draws.fill_uniform, "rand_like", "check_uniform_bounds")
randn_like = _like(draws.fill_normal, "randn_like", "normal_kernel_cpu")


def randint(
    *args: Any,
    low: int = 0,
    high: int | None = None,
    size: Any = None,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """``randint(high, size)`` or ``randint(low, high, size)``: integers from [low, high)."""
    values = list(args)
    if size is None:
        size = values.pop()
    if len(values) == 2:
        low, high = values
    elif len(values) == 1:
        if high is None:
            high = values[0]
        else:
            low = values[0]
    if high is None:
        got = ", ".join(type(a).__name__ for a in args)
        raise TypeError(f"randint() received an invalid combination of arguments - got ({got})")
    if low >= high:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )
    kind = dtype or (out.dtype if out is not None else types.int64)
    bounds = random_bounds(kind, int(low), int(high))
    shape = sizes_of("randint", (size,))
    return finish(_fresh(shape, kind, draws.fill_randint, generator, *bounds), requires_grad, out)


def randint_like(input: Tensor, *args: Any, dtype: dtype | None = None, **options: Any) -> Tensor:
    """``randint`` with the shape and type of ``input``."""
    for name in ("layout", "memory_format", "device"):
        options.pop(name, None)
    return randint(*args, size=tuple(input.shape), dtype=dtype or input.dtype, **options)


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: dtype = types.int64,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Returns a random permutation of ``0 … n - 1``."""
    if n < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    return finish(_fresh((n,), dtype, draws.fill_randperm, generator), requires_grad, out)


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: dtype | None = None,
    **options: Any,
) -> Tensor:
    """Returns normal numbers; ``mean`` and ``std`` are numbers (with ``size``) or tensors."""
    if size is not None:
        _check_std(std)
        kind = dtype or default_dtype()
        made = _fresh(sizes_of("normal", (size,)), kind, draws.fill_normal, generator, mean, std)
        return finish(made, options.get("requires_grad", False), out)
    if not isinstance(std, Tensor):
        _check_std(std)
    like = mean if isinstance(mean, Tensor) else std
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        shape: Any = (mean + std).shape  # type: ignore[operator]
    else:
        shape = like.shape
    if isinstance(std, Tensor) and std.numel() and bool((std < 0).any()):  # type: ignore[operator]
        raise RuntimeError("normal expects all elements of std >= 0.0")
    base: Any = _fresh(shape, like.dtype, draws.fill_normal, generator)
    with no_grad():
        result = finish(base * std + mean, False, out)
    inputs = [t for t in (mean, std) if isinstance(t, Tensor)]
    if out is None and path.needs_graph(inputs):
        # The draw itself has no derivative: PyTorch's gradients are zeros.
        overload = 3 if len(inputs) == 2 else 1 if isinstance(mean, Tensor) else 2
        path.attach(ZeroHistory(f"NormalBackward{overload}"), inputs, (result,), None)
    return result


def _check_std(std: float) -> None:
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")


# -- in place --------------------------------------------------------------------------------------


def uniform_(
    self: Tensor,
    from_: float = 0.0,
    to: float = 1.0,
    *,
    generator: Generator | None = None,
    **named: float,
) -> Tensor:
    """Fills with uniform numbers from [from, to)."""
    low = named.get("from", from_)
    if low > to:
        raise RuntimeError(
            f"uniform_ expects to return a [from, to) range, but found from={low} > to={to}"
        )
    _check_float("check_uniform_bounds", self.dtype)
    return draw_into(self, draws.fill_uniform, generator, low, to)


def normal_(
    self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fills with normal numbers."""
    _check_std(std)
    _check_float("normal_kernel_cpu", self.dtype)
    return draw_into(self, draws.fill_normal, generator, mean, std)


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fills with 1 with probability ``p`` (a number, or a tensor of probabilities), else 0."""
    if isinstance(p, Tensor):
        return copy_(self, bernoulli(p.expand(self.shape), generator=generator))  # type: ignore[attr-defined]
    _check_probability(p, "bernoulli_")
    return draw_into(self, draws.fill_bernoulli, generator, p)


def _check_probability(p: float, name: str) -> None:
    if not 0 <= p <= 1:
        raise RuntimeError(f"{name} expects p to be in [0, 1], but got p={p}")


def bernoulli(
    input: Tensor, p: Any = None, *, generator: Generator | None = None, out: Tensor | None = None
) -> Tensor:
    """Returns 0s and 1s; ``input`` holds the probabilities of 1 (or ``p`` does)."""
    if p is not None:
        kind = input.dtype
        return _fresh(input.shape, kind, draws.fill_bernoulli, generator, p)
    _check_float("bernoulli_tensor_cpu_p_", input.dtype)
    wide = input if input.dtype in (types.float32, types.float64) else input.float()  # type: ignore[attr-defined]
    wide = wide.detach().contiguous()
    if input.numel() and not bool(((wide >= 0) & (wide <= 1)).all()):
        raise RuntimeError(
            "Expected p_in >= 0 && p_in <= 1 to be true, but got false.  (Could this error message "
            "be improved?  If so, please report an enhancement request to PyTorch.)"
        )
    result = empty_tensor(input.shape, input.dtype)
    if input.numel():
        draws.fill_bernoulli_each(
            generator,
            result._storage.ready(),
            input.numel(),
            input.dtype,
            wide.data_ptr(),
            wide.dtype,
        )
    return finish(result, False, out)


def random_(
    self: Tensor,
    from_: Any = None,
    to: Any = None,
    *,
    generator: Generator | None = None,
    **named: Any,
) -> Tensor:
    """Fills with integers from [from, to); from the type's whole range without bounds."""
    low = named.get("from", from_)
    if low is None and to is None:
        return draw_into(self, draws.fill_random, generator)
    if to is None and "from" not in named:
        low, to = 0, low
    return draw_into(self, draws.fill_randint, generator, *random_bounds(self.dtype, low or 0, to))


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills from the exponential distribution with rate ``lambd``."""
    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    return draw_into(self, draws.fill_exponential, generator, lambd)


def cauchy_(
    self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fills from the Cauchy distribution."""
    return draw_into(self, draws.fill_cauchy, generator, median, sigma)


def log_normal_(
    self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> Tensor:
    """Fills with exponentials of normal numbers."""
    return draw_into(self, draws.fill_log_normal, generator, mean, std)


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fills from the geometric distribution."""
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    return draw_into(self, draws.fill_geometric, generator, p)


METHODS = {
    f.__name__: f
    for f in (
        uniform_,
        normal_,
        bernoulli_,
        random_,
        exponential_,
        cauchy_,
        log_normal_,
        geometric_,
        bernoulli,
    )
}


# -- choices ---------------------------------------------------------------------------------------


def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Returns indices drawn with the given weights: ``(n)`` or ``(m, n)`` to ``(…,
    num_samples)``.
    """
    if input.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if not input.dtype.is_floating_point:
        raise RuntimeError(
            f"multinomial only supports floating-point dtypes for input, got: {input.dtype.title}"
        )
    if out is not None and out.dtype is not types.int64:
        raise RuntimeError(f"multinomial expects Long tensor out, got: {out.dtype.title}")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > input.shape[-1]:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement"
        )
    if input.shape[-1] > 1 << 24:
        raise RuntimeError("number of categories cannot exceed 2^24")
    weights: Any = input.detach().contiguous()  # type: ignore[attr-defined]
    if not replacement or num_samples == 1:
        if bool((~(weights.isfinite() & (weights >= 0))).any()):
            raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
        if bool((weights.sum(-1) == 0).any()):
            raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
        noise: Any = exponential_(
            empty_tensor(weights.shape, weights.dtype), 1.0, generator=generator
        )
        scores = weights / noise
        if num_samples == 1:
            return finish(scores.argmax(-1, keepdim=True), False, out)
        return finish(scores.topk(num_samples, -1)[1], False, out)
    rows = 1 if weights.ndim == 1 else weights.shape[0]
    count = weights.shape[-1]
    result = empty_tensor((*weights.shape[:-1], num_samples), types.int64)
    for row in range(rows):
        draws.fill_choices(
            generator,
            result._storage.ready() + row * num_samples * 8,
            num_samples,
            weights.data_ptr() + row * count * weights.dtype.itemsize,
            weights.dtype,
            count,
        )
    return finish(result, False, out)


# -- dropout ---------------------------------------------------------------------------------------


def _check_dropout(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def noise_like(input: Tensor, p: float, shape: Any = None) -> Tensor:
    """0 with probability ``p``, else ``1 / (1 - p)``."""
    layout = like_layout(input) if shape is None else Layout.of(shape, input.dtype)
    noise = Tensor._from_storage(Storage(layout.nbytes), layout)
    return draw_into(noise, draws.fill_bernoulli, None, 1 - p, 1 / (1 - p))


def dropout(input: Any, p: float, train: bool) -> Any:
    """Zeroes elements with probability ``p`` and scales the others by ``1 / (1 - p)``.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    2014.
    """
    _check_dropout(p)
    if p == 0 or not train or input.numel() == 0:
        return input
    return input * 0 if p == 1 else input * noise_like(input, p)


def feature_dropout(input: Any, p: float, train: bool) -> Any:
    """Zeroes whole channels ``(N, C, …)``."""
    _check_dropout(p)
    if input.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    if p == 0 or not train or input.numel() == 0:
        return input
    shape = (input.shape[0], input.shape[1], *([1] * (input.ndim - 2)))
    return input * 0 if p == 1 else input * noise_like(input, p, shape)


# The values that keep mean and variance through SELU.  Source: Klambauer et al.,
# "Self-Normalizing Neural Networks", 2017.
_SELU_ALPHA = 1.7580993408473766


def alpha_dropout(input: Any, p: float, train: bool, shape: Any = None) -> Any:
    """Dropout that keeps mean and variance of self-normalising networks."""
    _check_dropout(p)
    if p == 0 or not train or input.numel() == 0:
        return input
    if p == 1:
        return input * 0
    layout = like_layout(input) if shape is None else Layout.of(shape, input.dtype)
    kept: Any = Tensor._from_storage(Storage(layout.nbytes), layout)
    draw_into(kept, draws.fill_bernoulli, None, 1 - p)
    scale = 1.0 / ((_SELU_ALPHA**2 * p + 1) * (1 - p)) ** 0.5
    shift = (kept - 1) * (_SELU_ALPHA * scale) + _SELU_ALPHA * scale * p
    return input * (kept * scale) + shift


def feature_alpha_dropout(input: Any, p: float, train: bool) -> Any:
    """Alpha dropout of whole channels."""
    return alpha_dropout(input, p, train, (*input.shape[:2], *([1] * (input.ndim - 2))))
