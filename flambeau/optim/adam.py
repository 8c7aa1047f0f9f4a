"""Adam, with L2 or decoupled weight decay and AMSGrad."""

import math
from collections.abc import Callable
from typing import Any

from flambeau.core.dtype import float32, float64
from flambeau.graph import grad_mode
from flambeau.ops.creation import zeros, zeros_like
from flambeau.ops.declare import default_dtype
from flambeau.ops.foreach import adam_step_
from flambeau.optim.optimizer import (
    CAPTURABLE_DEVICES,
    Optimizer,
    ParamsT,
    check_fused_parameter,
    host_number,
    to_scalar,
)
from flambeau.tensor import Tensor

__all__ = ["Adam"]


class _Counter:
    """A parameter's ``state["step"]`` and a view of its bytes that Python can count in.

    PyTorch keeps ``step`` in a float32 tensor.  Reading such a tensor flushes the tape and adding
    to it records a call, for every parameter in every step.  A 0-dimensional tensor that numpy can
    see needs neither: its storage is exported, hence never pending (invariant I6), and
    ``memory[()]`` is the number itself.  Whoever looks at the tensor sees the right count.
    """

    __slots__ = ("memory", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        array = tensor.detach().numpy().reshape(())
        self.tensor = tensor
        # A memoryview reads a float faster than an array does, but knows no float16.
        self.memory = memoryview(array) if array.dtype.itemsize >= 4 else array


class Adam(Optimizer):
    """``param -= lr * m̂ / (√v̂ + eps)``, with ``m``, ``v`` running means of ``grad``, ``grad²``.

    ``weight_decay`` adds that multiple of the parameter to the gradient, or shrinks the parameter
    by ``lr * weight_decay`` when ``decoupled_weight_decay`` is set.  ``amsgrad`` divides by the
    largest ``v`` so far.  ``foreach`` and ``fused`` are accepted: each parameter is one fused call
    anyway.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        one_kernel = bool(foreach) and not capturable
        _check_one_element("lr", lr, one_kernel)
        if not 0.0 <= lr:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not 0.0 <= eps:
            raise ValueError(f"Invalid epsilon value: {eps}")
        for index in (0, 1):
            if not 0.0 <= betas[index] < 1.0:
                raise ValueError(f"Invalid beta parameter at index {index}: {betas[index]}")
        if not 0.0 <= weight_decay:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        if not any(all(isinstance(beta, kind) for beta in betas[:2]) for kind in (float, Tensor)):
            raise ValueError("betas must be either both floats or both Tensors")
        for index in (0, 1):
            _check_one_element(f"betas[{index}]", betas[index], one_kernel)
        defaults = {
            "lr": lr,
            "betas": tuple(map(to_scalar, betas)),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        self._counters: dict[Tensor, _Counter] = {}
        super().__init__(params, defaults)
        if fused:
            if differentiable:
                raise RuntimeError("`fused` does not support `differentiable`")
            self._step_supports_amp_scaling = True
            if foreach:
                raise RuntimeError("`fused` and `foreach` cannot be `True` together.")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._counters = {}
        for group in self.param_groups:
            group.setdefault("amsgrad", False)
            group.setdefault("maximize", False)
            group.setdefault("foreach", None)
            group.setdefault("capturable", False)
            group.setdefault("differentiable", False)
            group.setdefault("decoupled_weight_decay", False)
            group.setdefault("fused", None)
            for param in group["params"]:
                self._settle_step(param, group)

    def _settle_step(self, param: Tensor, group: dict[str, Any]) -> None:
        """Turn the plain number that old checkpoints hold into a step tensor."""
        state = self.state.get(param)
        if state and not isinstance(state["step"], Tensor):
            step = new_step(param, group)
            state["step"] = step.fill_(float(state["step"]))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return the loss of ``closure``."""
        loss = self._evaluate(closure)
        previous = grad_mode.enabled
        grad_mode.enabled = bool(self.defaults["differentiable"])
        try:
            for group in self.param_groups:
                if group["differentiable"] or group["capturable"]:
                    self._differentiable_update(group)
                else:
                    self._update(group)
        finally:
            grad_mode.enabled = previous
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        if isinstance(group["lr"], Tensor) and group["foreach"]:
            raise RuntimeError(
                "lr as a Tensor is not supported for capturable=False and foreach=True"
            )
        lr = host_number(group["lr"])
        beta1, beta2 = map(host_number, group["betas"])
        eps = float(group["eps"])
        first_weight, second_weight = 1 - beta1, 1 - beta2
        decay, factor = _decay(group, lr)
        amsgrad = bool(group["amsgrad"])
        update = adam_step_(amsgrad, decay, bool(group["maximize"]), first_weight >= 0.5)
        states = self.state
        counters = self._counters
        numbers: tuple[float, ...] = ()
        numbers_step = -1.0
        for param in group["params"]:
            grad = param._grad
            if grad is None:
                continue
            state = states[param]
            if not state:
                self._start(param, state, group)
            counter = counters.get(param)
            if counter is None or counter.tensor is not state["step"]:
                counter = counters[param] = _Counter(state["step"])
            memory = counter.memory
            memory[()] = step = memory[()] + 1.0
            if step != numbers_step:
                # Parameters step together nearly always: one computation serves the group.
                numbers_step = step
                numbers = (
                    lr / (1 - beta1**step),
                    math.sqrt(1 - beta2**step),
                    eps,
                    first_weight,
                    beta2,
                    second_weight,
                    factor,
                )
            if amsgrad:
                largest = state["max_exp_avg_sq"]
                update((param, grad, state["exp_avg"], state["exp_avg_sq"], largest), numbers)
            else:
                update((param, grad, state["exp_avg"], state["exp_avg_sq"]), numbers)

    def _start(self, param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if group["fused"]:
            check_fused_parameter(param)
        if param.grad.is_sparse:
            raise RuntimeError(
                "Adam does not support sparse gradients, please consider SparseAdam instead"
            )
        state["step"] = new_step(param, group)
        state["exp_avg"] = zeros_like(param)
        state["exp_avg_sq"] = zeros_like(param)
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_like(param)

    def _differentiable_update(self, group: dict[str, Any]) -> None:
        """The same formulas in ordinary operations, which autograd or a graph capture records."""
        lr = to_scalar(group["lr"])
        beta1, beta2 = map(to_scalar, group["betas"])
        weight_decay = group["weight_decay"]
        for param in group["params"]:
            grad = param.grad
            if grad is None:
                continue
            state = self.state[param]
            if not state:
                self._start(param, state, group)
            step = state["step"]
            if group["differentiable"] and step.requires_grad:
                raise RuntimeError(
                    "`requires_grad` is not supported for `step` in differentiable mode"
                )
            if group["capturable"]:
                _check_capturable(param, step)
            step += 1
            if group["maximize"]:
                grad = -grad
            if isinstance(weight_decay, Tensor) or weight_decay != 0:
                if group["decoupled_weight_decay"]:
                    param.mul_(1 - lr * weight_decay)
                else:
                    grad = grad + param.clone() * weight_decay
            exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
            exp_avg.add_((grad - exp_avg) * (1 - beta1))
            exp_avg_sq.mul_(beta2).add_(grad * grad * (1 - beta2))
            second = exp_avg_sq
            if group["amsgrad"]:
                largest = state["max_exp_avg_sq"]
                second = largest.copy_(largest.clone().maximum(exp_avg_sq))
            first_correction = 1 - beta1 ** step.clone()
            root_correction = (1 - beta2 ** step.clone()).sqrt()
            denominator = second.sqrt() / root_correction + group["eps"]
            param.sub_(exp_avg / denominator * (lr / first_correction))


def new_step(param: Tensor, group: dict[str, Any]) -> Tensor:
    """A counter at zero: on the host, or beside the parameter when the device counts."""
    on_device = group["capturable"] or group["fused"]
    dtype = float64 if default_dtype() is float64 and not group["fused"] else float32
    return zeros((), dtype=dtype, device=param.device if on_device else "cpu")


def _decay(group: dict[str, Any], lr: float) -> tuple[str, float]:
    """Where the weight decay acts, and the number that the update takes for it."""
    weight_decay = host_number(group["weight_decay"])
    if weight_decay == 0:
        return "none", 0.0
    if group["decoupled_weight_decay"]:
        return "parameter", 1 - lr * weight_decay
    return "gradient", weight_decay


def _check_one_element(name: str, value: Any, one_kernel: bool) -> None:
    if not isinstance(value, Tensor):
        return
    if one_kernel:
        raise ValueError(
            f"{name} as a Tensor is not supported for capturable=False and foreach=True"
        )
    if value.numel() != 1:
        raise ValueError(f"Tensor {name} must be 1-element")


def _check_capturable(param: Tensor, step: Tensor) -> None:
    kind = param.device.type
    if kind != step.device.type or kind not in CAPTURABLE_DEVICES:
        raise AssertionError(
            "If capturable=True, params and state_steps must be on supported devices: "
            f"{CAPTURABLE_DEVICES}."
        )
