"""Runs of optimizers and schedulers, written against a namespace that is PyTorch's or ours."""

import warnings
from types import ModuleType
from typing import Any

import numpy as np

STEPS = 50
SHAPES = ((4, 3), (5,), ())

# name -> (class, options).  Each runs with two parameter groups, the second with its own rate.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd_decay": ("SGD", {"lr": 0.1, "weight_decay": 0.02}),
    "sgd_momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "sgd_dampening": ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    "sgd_nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "sgd_maximize": ("SGD", {"lr": 0.05, "momentum": 0.5, "maximize": True, "weight_decay": 0.1}),
    "sgd_foreach": ("SGD", {"lr": 0.1, "momentum": 0.9, "foreach": True}),
    "sgd_fused": ("SGD", {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "sgd_differentiable": ("SGD", {"lr": 0.1, "momentum": 0.9, "differentiable": True}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam_decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    "adam_decoupled": (
        "Adam",
        {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "adam_amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True}),
    "adam_maximize": ("Adam", {"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    "adam_betas": ("Adam", {"lr": 0.01, "betas": (0.3, 0.9), "eps": 1e-3}),
    "adam_foreach": ("Adam", {"lr": 0.01, "foreach": True}),
    "adam_fused": ("Adam", {"lr": 0.01, "fused": True}),
    "adam_differentiable": ("Adam", {"lr": 0.01, "differentiable": True, "amsgrad": True}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw_amsgrad": ("AdamW", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.2}),
}


def values(seed: int, shape: tuple[int, ...]) -> list[Any]:
    """Random float32 numbers, as nested lists."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32).tolist()


def run_optimizer(torch: ModuleType, name: str, steps: int = STEPS) -> Any:
    """An optimizer after ``steps`` steps on recorded gradients, and its parameters."""
    cls, options = OPTIMIZERS[name]
    params = [torch.tensor(values(k, shape), dtype=torch.float32) for k, shape in enumerate(SHAPES)]
    for param in params:
        param.requires_grad_(not options.get("differentiable"))
    groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.03}]
    optimizer = getattr(torch.optim, cls)(groups, **options)
    continue_run(torch, optimizer, params, 0, steps)
    return optimizer, params


def continue_run(torch: ModuleType, optimizer: Any, params: list, first: int, steps: int) -> None:
    """More steps; the third parameter has no gradient in the first ones (PyTorch's fused SGD
    cannot have that)."""
    late = not optimizer.defaults["fused"]
    for step in range(first, first + steps):
        for k, shape in enumerate(SHAPES):
            grad = torch.tensor(values(1000 * k + step + 7, shape), dtype=torch.float32)
            params[k].grad = None if late and k == 2 and step < 3 else grad
        optimizer.step()


def plain(value: Any) -> Any:
    """Tensors as lists, so that JSON can hold what `state_dict` returns."""
    if hasattr(value, "tolist"):
        return value.detach().tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def describe_optimizer(torch: ModuleType, name: str) -> dict[str, Any]:
    """What is recorded of a run."""
    optimizer, params = run_optimizer(torch, name)
    return {
        "params": plain(params),
        "state_dict": plain(optimizer.state_dict()),
        "repr": repr(optimizer),
    }


SCHEDULERS = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda epoch: 0.95**epoch),
    "LambdaLR list": lambda s, o: s.LambdaLR(o, [lambda epoch: 1 / (1 + epoch)]),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda s, o: s.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [3, 7, 7], 0.3),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.4, 4),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.4, 0.8, 6),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 12, 0.9),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 8, 1e-3),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, 2, 1e-3),
    "CyclicLR triangular": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4),
    "CyclicLR triangular2": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, 5, mode="triangular2"),
    "CyclicLR exp_range": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, mode="exp_range", gamma=0.9),
    "CyclicLR function": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 4, scale_fn=lambda x: 0.5**x),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=30),
    "OneCycleLR linear three phases": lambda s, o: s.OneCycleLR(
        o, 0.1, epochs=6, steps_per_epoch=5, anneal_strategy="linear", three_phase=True
    ),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, 1.0, 5), s.ExponentialLR(o, 0.9)], [5]
    ),
    "SequentialLR of three": lambda s, o: s.SequentialLR(
        o,
        [s.ConstantLR(o, 0.1, 2), s.CosineAnnealingLR(o, 5), s.StepLR(o, 2, 0.5)],
        [3, 9],
    ),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)], o
    ),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, patience=2, cooldown=1),
    "ReduceLROnPlateau max": lambda s, o: s.ReduceLROnPlateau(
        o, mode="max", patience=1, threshold_mode="abs", min_lr=0.004
    ),
}


def make_scheduler(torch: ModuleType, name: str) -> Any:
    """An SGD optimizer with one parameter, under the scheduler of that name."""
    param = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([param], lr=0.1, momentum=0.9)
    return optimizer, SCHEDULERS[name](torch.optim.lr_scheduler, optimizer)


def describe_scheduler(torch: ModuleType, name: str) -> dict[str, Any]:
    """Rates and momenta over 25 epochs, and what a checkpoint holds after them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer, scheduler = make_scheduler(torch, name)
        trace = []
        for epoch in range(25):
            group = optimizer.param_groups[0]
            trace.append([group["lr"], group["momentum"], scheduler.get_last_lr()[0]])
            optimizer.step()
            step_scheduler(scheduler, epoch)
    return {
        "trace": trace,
        "state_dict": plain(scheduler.state_dict()),
        "warnings": [str(warning.message) for warning in caught],
    }


def step_scheduler(scheduler: Any, epoch: int) -> None:
    """One epoch; plateaus are told a metric that stops improving."""
    if type(scheduler).__name__ == "ReduceLROnPlateau":
        scheduler.step(1.0 / (1 + min(epoch, 5)))
    else:
        scheduler.step()


def _groups(torch: ModuleType) -> tuple[Any, Any]:
    return torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)


def _adam(torch: ModuleType, params: Any = None, **options: Any) -> Any:
    return torch.optim.Adam([_groups(torch)[0]] if params is None else params, **options)


def _sgd(torch: ModuleType, **options: Any) -> Any:
    return torch.optim.SGD([_groups(torch)[0]], **options)


def _shared_between_groups(torch: ModuleType) -> None:
    a, _ = _groups(torch)
    torch.optim.Adam([{"params": [a]}, {"params": a}])


def _load_other_groups(torch: ModuleType) -> None:
    a, b = _groups(torch)
    two = torch.optim.SGD([{"params": a}, {"params": b}])
    torch.optim.SGD([a]).load_state_dict(two.state_dict())


def _load_other_sizes(torch: ModuleType) -> None:
    torch.optim.SGD([_groups(torch)[0]]).load_state_dict(
        torch.optim.SGD(_groups(torch)).state_dict()
    )


def _capturable(torch: ModuleType) -> None:
    a, _ = _groups(torch)
    a.grad = torch.zeros(2)
    torch.optim.Adam([a], capturable=True).step()


def _fused_integers(torch: ModuleType) -> None:
    a = torch.zeros(2, dtype=torch.int64)
    a.grad = torch.zeros(2, dtype=torch.int64)
    torch.optim.Adam([a], fused=True).step()


def _mixed_names(torch: ModuleType) -> None:
    a, b = _groups(torch)
    torch.optim.Adam([("a", a)]).add_param_group({"params": [b]})


def _scheduler(torch: ModuleType, name: str, *args: Any, **options: Any) -> Any:
    return getattr(torch.optim.lr_scheduler, name)(_sgd(torch), *args, **options)


def _sequential(torch: ModuleType, parts: int, milestones: list[int]) -> Any:
    optimizer = _sgd(torch)
    schedulers = torch.optim.lr_scheduler
    pieces = [schedulers.ExponentialLR(optimizer, 0.9) for _ in range(parts)]
    return schedulers.SequentialLR(optimizer, pieces, milestones)


def _too_many_steps(torch: ModuleType) -> None:
    scheduler = _scheduler(torch, "OneCycleLR", 0.1, total_steps=2)
    for _ in range(4):
        scheduler.step()


ERRORS = {
    "tensor": lambda t: t.optim.Adam(t.zeros(2)),
    "empty": lambda t: _adam(t, []),
    "not a tensor": lambda t: _adam(t, [3]),
    "not iterable": lambda t: _adam(t, 3),
    "non-leaf": lambda t: _adam(t, [_groups(t)[0] * 2]),
    "twice": _shared_between_groups,
    "set": lambda t: _adam(t, [{"params": {_groups(t)[0]}}]),
    "some names": lambda t: _adam(t, [("a", _groups(t)[0]), _groups(t)[1]]),
    "mixed names": _mixed_names,
    "group type": lambda t: _adam(t).add_param_group([_groups(t)[1]]),
    "other groups": _load_other_groups,
    "other sizes": _load_other_sizes,
    "sgd lr": lambda t: _sgd(t, lr=-1.0),
    "sgd momentum": lambda t: _sgd(t, momentum=-0.5),
    "sgd decay": lambda t: _sgd(t, weight_decay=-0.5),
    "sgd nesterov": lambda t: _sgd(t, nesterov=True),
    "sgd fused foreach": lambda t: _sgd(t, fused=True, foreach=True),
    "sgd fused differentiable": lambda t: _sgd(t, fused=True, differentiable=True),
    "sgd tensor lr": lambda t: _sgd(t, lr=t.zeros(2)),
    "adam lr": lambda t: _adam(t, lr=-1.0),
    "adam eps": lambda t: _adam(t, eps=-1.0),
    "adam beta 0": lambda t: _adam(t, betas=(1.0, 0.9)),
    "adam beta 1": lambda t: _adam(t, betas=(0.9, -0.1)),
    "adam betas": lambda t: _adam(t, betas=(0, 0.9)),
    "adam decay": lambda t: _adam(t, weight_decay=-1.0),
    "adam tensor lr": lambda t: _adam(t, lr=t.tensor(0.1), foreach=True),
    "adam fused foreach": lambda t: _adam(t, fused=True, foreach=True),
    "adam capturable": _capturable,
    "adam fused integers": _fused_integers,
    "scheduler optimizer": lambda t: t.optim.lr_scheduler.StepLR(3, 2),
    "scheduler resume": lambda t: _scheduler(t, "StepLR", 2, last_epoch=3),
    "lambda count": lambda t: _scheduler(t, "LambdaLR", [abs, abs]),
    "multiplicative type": lambda t: _scheduler(t, "MultiplicativeLR", 0.9),
    "constant factor": lambda t: _scheduler(t, "ConstantLR", 1.5),
    "linear start": lambda t: _scheduler(t, "LinearLR", 0.0),
    "linear end": lambda t: _scheduler(t, "LinearLR", 0.5, 2.0),
    "plateau factor": lambda t: _scheduler(t, "ReduceLROnPlateau", factor=1.0),
    "plateau mode": lambda t: _scheduler(t, "ReduceLROnPlateau", mode="least"),
    "plateau threshold": lambda t: _scheduler(t, "ReduceLROnPlateau", threshold_mode="x"),
    "plateau min": lambda t: _scheduler(t, "ReduceLROnPlateau", min_lr=[0.1, 0.2]),
    "restarts T_0": lambda t: _scheduler(t, "CosineAnnealingWarmRestarts", 0),
    "restarts T_mult": lambda t: _scheduler(t, "CosineAnnealingWarmRestarts", 3, 0.5),
    "cycle mode": lambda t: _scheduler(t, "CyclicLR", 0.1, 0.2, mode="square"),
    "cycle lengths": lambda t: _scheduler(t, "CyclicLR", [0.1, 0.2], 0.2),
    "one cycle steps": lambda t: _scheduler(t, "OneCycleLR", 0.1),
    "one cycle pct": lambda t: _scheduler(t, "OneCycleLR", 0.1, total_steps=3, pct_start=2.0),
    "one cycle anneal": lambda t: _scheduler(
        t, "OneCycleLR", 0.1, total_steps=3, anneal_strategy="steep"
    ),
    "one cycle too many": _too_many_steps,
    "sequential none": lambda t: _sequential(t, 0, []),
    "sequential milestones": lambda t: _sequential(t, 2, [1, 2]),
    "chained none": lambda t: t.optim.lr_scheduler.ChainedScheduler([]),
}


def describe_error(torch: ModuleType, name: str) -> list[str]:
    """Type and text of the exception that a bad call raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ERRORS[name](torch)
        except Exception as error:
            return [type(error).__name__, str(error)]
    return ["no error", ""]
