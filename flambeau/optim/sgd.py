"""Stochastic gradient descent, with momentum, dampening, weight decay and Nesterov's variant."""

from collections.abc import Callable
from typing import Any

from flambeau.graph import grad_mode
from flambeau.ops.creation import empty_like
from flambeau.ops.foreach import sgd_momentum_step_, sgd_step_
from flambeau.optim.optimizer import (
    Optimizer,
    ParamsT,
    check_fused_parameter,
    host_number,
    to_scalar,
)
from flambeau.tensor import Tensor

__all__ = ["SGD"]


class SGD(Optimizer):
    """``param -= lr * d`` with ``d`` the gradient, or its running sum when ``momentum`` is set.

    With ``momentum``, the buffer is ``b = momentum * b + (1 - dampening) * grad`` (the first step
    takes the gradient itself) and ``d`` is ``b``, or ``grad + momentum * b`` under ``nesterov``.
    ``weight_decay`` adds that multiple of the parameter to the gradient.  ``foreach`` and
    ``fused`` are accepted: each parameter is one fused call anyway.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if lr < 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if momentum < 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if weight_decay < 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        if fused:
            self._step_supports_amp_scaling = True
            if differentiable:
                raise RuntimeError("`fused` does not support `differentiable`")
            if foreach:
                raise RuntimeError("`fused` and `foreach` cannot be `True` together.")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("nesterov", False)
            group.setdefault("maximize", False)
            group.setdefault("foreach", None)
            group.setdefault("differentiable", False)
            group.setdefault("fused", False)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return the loss of ``closure``."""
        loss = self._evaluate(closure)
        previous = grad_mode.enabled
        grad_mode.enabled = bool(self.defaults["differentiable"])
        try:
            for group in self.param_groups:
                if group["fused"]:
                    check_fused_group(group["params"])
                if group["differentiable"]:
                    self._differentiable_update(group)
                elif group["momentum"] == 0:
                    self._plain_update(group)
                else:
                    self._momentum_update(group)
        finally:
            grad_mode.enabled = previous
        return loss

    def _plain_update(self, group: dict[str, Any]) -> None:
        weight_decay = host_number(group["weight_decay"])
        numbers = (host_number(group["lr"]), weight_decay)
        update = sgd_step_(weight_decay != 0, bool(group["maximize"]))
        for param in group["params"]:
            grad = param._grad
            if grad is not None:
                update((param, grad), numbers)

    def _momentum_update(self, group: dict[str, Any]) -> None:
        weight_decay = host_number(group["weight_decay"])
        momentum = float(group["momentum"])
        numbers = (host_number(group["lr"]), weight_decay, momentum, 1.0 - group["dampening"])
        switches = (bool(group["nesterov"]), weight_decay != 0, bool(group["maximize"]))
        update = sgd_momentum_step_(False, *switches)
        states = self.state
        for param in group["params"]:
            grad = param._grad
            if grad is None:
                continue
            state = states[param]
            buffer = state.get("momentum_buffer")
            if buffer is None:
                # The first step takes the gradient itself, undampened.
                buffer = state["momentum_buffer"] = empty_like(grad)
                sgd_momentum_step_(True, *switches)((param, grad, buffer), numbers)
            else:
                update((param, grad, buffer), numbers)

    def _differentiable_update(self, group: dict[str, Any]) -> None:
        """The same formulas in ordinary operations, which autograd records."""
        lr = to_scalar(group["lr"])
        weight_decay = group["weight_decay"]
        momentum = group["momentum"]
        for param in group["params"]:
            grad = param.grad
            if grad is None:
                continue
            if group["maximize"]:
                grad = -grad
            if isinstance(weight_decay, Tensor) or weight_decay != 0:
                grad = grad + param.clone() * weight_decay
            if momentum != 0:
                state = self.state[param]
                buffer = state.get("momentum_buffer")
                if buffer is None:
                    buffer = state["momentum_buffer"] = grad.detach().clone()
                else:
                    buffer.mul_(momentum).add_(grad * (1 - group["dampening"]))
                grad = grad + buffer * momentum if group["nesterov"] else buffer
            param.add_(grad * -lr)


def check_fused_group(params: list[Tensor]) -> None:
    """Raise PyTorch's error for the first parameter with a gradient that fusing excludes."""
    for param in params:
        if param._grad is not None:
            check_fused_parameter(param)
