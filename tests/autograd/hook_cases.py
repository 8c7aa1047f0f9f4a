"""Programs about hooks on tensors and nodes; see `tests/semantics.py`."""

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def leaf(torch):
    return torch.tensor([1.0, 2.0], requires_grad=True)


@case
def order_and_replacement(torch):
    x, log = leaf(torch), []
    x.register_hook(lambda g: log.append(["first", g.tolist()]))
    x.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: log.append(["third", g.tolist()]))
    (x * 3).sum().backward()
    return log, x.grad


@case
def hook_of_nonleaf(torch):
    x, log = leaf(torch), []
    y = x * 2
    y.register_hook(lambda g: log.append(g.tolist()))
    y.register_hook(lambda g: g + 1)
    (y * y).sum().backward()
    return log, x.grad


@case
def removal(torch):
    x, log = leaf(torch), []
    handle = x.register_hook(lambda g: log.append("removed"))
    x.register_hook(lambda g: log.append("kept"))
    handle.remove()
    handle.remove()
    (x * 3).sum().backward()
    return log


@case
def handle_as_context(torch):
    x, log = leaf(torch), []
    with x.register_hook(lambda g: log.append(1)):
        (x * 3).sum().backward()
    (x * 3).sum().backward()
    return log


@case
def errors(torch):
    x = leaf(torch)
    wrong = leaf(torch)
    wrong.register_hook(lambda g: 5)
    shape = leaf(torch)
    shape.register_hook(lambda g: torch.ones(3))
    return [
        attempt(torch, lambda: torch.ones(2).register_hook(print)),
        attempt(torch, lambda: (wrong * 2).sum().backward()),
        attempt(torch, lambda: (shape * 2).sum().backward()),
        attempt(torch, lambda: (x * 2).register_post_accumulate_grad_hook(print)),
        attempt(torch, lambda: torch.ones(2).register_post_accumulate_grad_hook(print)),
    ]


@case
def hook_sees_sum_of_paths(torch):
    x, log = leaf(torch), []
    y = x * 2
    y.register_hook(lambda g: log.append(g.tolist()))
    (y * 3 + y * 4).sum().backward()
    return log


@case
def retained_gradient_is_after_hooks(torch):
    x = leaf(torch)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 100)
    y.sum().backward()
    return y.grad, x.grad


@case
def post_accumulate(torch):
    x, log = leaf(torch), []
    handle = x.register_post_accumulate_grad_hook(lambda t: log.append([t is x, t.grad.tolist()]))
    (x * 3).sum().backward()
    (x * 3).sum().backward()
    handle.remove()
    (x * 3).sum().backward()
    return log


@case
def post_accumulate_may_clear(torch):
    x = leaf(torch)

    def step(parameter):
        with torch.no_grad():
            parameter.sub_(parameter.grad)
        parameter.grad = None

    x.register_post_accumulate_grad_hook(step)
    (x * x).sum().backward()
    return x, x.grad


@case
def node_hooks(torch):
    x, log = leaf(torch), []
    y = x * 2
    node = y.grad_fn
    node.register_hook(
        lambda inputs, outputs: log.append(
            [
                "after",
                [g if g is None else g.tolist() for g in inputs],
                [g.tolist() for g in outputs],
            ]
        )
    )
    node.register_prehook(lambda outputs: log.append(["before", [g.tolist() for g in outputs]]))
    y.sum().backward()
    return log


@case
def node_hooks_replace(torch):
    x = leaf(torch)
    y = x * 2
    y.grad_fn.register_prehook(lambda outputs: (outputs[0] * 10,))
    y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] + 1, *inputs[1:]))
    y.sum().backward()
    return x.grad


@case
def node_hook_of_leaf(torch):
    x, log = leaf(torch), []
    y = x * 2
    node = y.grad_fn.next_functions[0][0]
    node.register_hook(lambda inputs, outputs: log.append([g.tolist() for g in outputs]))
    y.sum().backward()
    return log


@case
def hook_with_create_graph(torch):
    x, log = leaf(torch), []
    x.register_hook(lambda g: log.append(g.requires_grad))
    (x**3).sum().backward(create_graph=True)
    return log


@case
def hook_with_grad_function(torch):
    x = leaf(torch)
    x.register_hook(lambda g: g * 10)
    found = torch.autograd.grad((x * x).sum(), x)
    return found, x.grad


@case
def hook_before_in_place(torch):
    x, log = leaf(torch), []
    y = x * 2
    y.register_hook(lambda g: log.append(["before", g.tolist()]))
    y.mul_(3)
    y.register_hook(lambda g: log.append(["after", g.tolist()]))
    (y * 1).sum().backward()
    return log, x.grad


@case
def hook_may_write_closure(torch):
    x, seen = leaf(torch), {}
    y = x.exp()
    y.register_hook(lambda g: seen.update(g=g))
    (y * y).sum().backward()
    return seen


@case
def order_of_nodes(torch):
    x, log = leaf(torch), []
    a = x * 2
    b = x * 3
    c = a + b
    for name, t in (("a", a), ("b", b), ("c", c)):
        t.register_hook(lambda g, name=name: log.append(name))
    c.sum().backward()
    return log
