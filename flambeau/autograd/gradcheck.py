"""Numerical checks of gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flambeau.autograd.engine import grad
from flambeau.core import dtype as types
from flambeau.graph import enable_grad, no_grad
from flambeau.interchange import shared_array, tensor_from_array
from flambeau.tensor import Tensor


class GradcheckError(RuntimeError):
    """Raised where analytical and numerical gradients differ."""


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [v for v in value if isinstance(v, Tensor)] if isinstance(value, Sequence) else []


def _floating(values: Sequence[Tensor]) -> list[Tensor]:
    return [t for t in values if t.dtype.is_floating_point and t.requires_grad]


def _values(tensor: Tensor) -> np.ndarray:
    plain = Tensor._from_storage(tensor._storage, tensor._layout)
    return np.array(shared_array(plain), np.float64)


def _numerical(
    function: Callable[..., Any], inputs: Sequence[Any], which: Tensor, eps: float
) -> list[np.ndarray]:
    """One Jacobian per output: (elements of the input, elements of the output)."""
    memory = shared_array(Tensor._from_storage(which._storage, which._layout))
    flat = [np.unravel_index(k, which.shape) for k in range(which.numel())]
    rows: list[list[np.ndarray]] = []
    for position in flat:
        kept = memory[position].copy()
        sides = []
        for step in (eps, -eps):
            memory[position] = kept + step
            with no_grad():
                outputs = _tensors(function(*inputs))
            sides.append([_values(o).ravel() for o in outputs if o.dtype.is_floating_point])
        memory[position] = kept
        rows.append([(up - down) / (2 * eps) for up, down in zip(*sides, strict=True)])
    count = len(rows[0]) if rows else 0
    return [np.stack([row[k] for row in rows]) for k in range(count)]


def _analytical(output: Tensor, which: Tensor) -> np.ndarray:
    columns = []
    for k in range(output.numel()):
        seed = np.zeros(output.numel())
        seed[k] = 1
        cotangent = tensor_from_array(seed.reshape(output.shape), output.dtype)
        (found,) = grad(output, which, cotangent, retain_graph=True, allow_unused=True)
        columns.append(np.zeros(which.numel()) if found is None else _values(found).ravel())
    return np.stack(columns, 1) if columns else np.zeros((which.numel(), 0))


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compares gradients with central differences.

    Inputs should be float64 with ``requires_grad=True``.  Raises GradcheckError on a difference, or
    returns False with ``raise_exception=False``.
    """
    given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    checked = _floating(_tensors(given))
    if not checked:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them "
            "have requires_grad=True."
        )
    outputs = [t for t in _tensors(func(*given)) if t.dtype.is_floating_point]
    for which_index, which in enumerate(checked):
        numerical = _numerical(func, given, which, eps)
        for k, output in enumerate(outputs):
            if not (output.requires_grad and which.numel()):
                continue
            analytical = _analytical(output, which)
            if np.allclose(analytical, numerical[k], rtol=rtol, atol=atol):
                continue
            if not raise_exception:
                return False
            raise GradcheckError(
                f"Jacobian mismatch for output {k} with respect to input {which_index},\n"
                f"numerical:{numerical[k]}\nanalytical:{analytical}\n"
            )
    return True


def gradgradcheck(
    func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, **options: Any
) -> bool:
    """Checks gradients of gradients the same way."""
    given = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    checked = _floating(_tensors(given))
    outputs = _floating(_tensors(func(*given)))
    if grad_outputs is None:
        random = np.random.default_rng(0)
        seeds = [tensor_from_array(random.standard_normal(o.shape), types.float64) for o in outputs]
    else:
        seeds = _tensors(grad_outputs)
    for seed in seeds:
        seed.requires_grad_()

    def first(*arguments: Any) -> Any:
        values, vectors = arguments[: len(given)], arguments[len(given) :]
        wanted = _floating(_tensors(values))
        with enable_grad():
            results = _floating(_tensors(func(*values)))
            found = grad(results, wanted, vectors, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    for name in ("gen_non_contig_grad_outputs", "check_fwd_over_rev", "check_rev_over_rev"):
        options.pop(name, None)
    assert checked
    return gradcheck(first, (*given, *seeds), **options)
