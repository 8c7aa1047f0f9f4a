"""Programs about the graph: leaves, nodes, accumulation, freeing, ``grad()``."""

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def leaf(torch, *values, dtype=None):
    return torch.tensor(values or (1.0, 2.0, 3.0), requires_grad=True, dtype=dtype)


@case
def gradients_accumulate(torch):
    x = leaf(torch)
    (x * 2).sum().backward()
    first = x.grad.tolist()
    (x * x).sum().backward()
    return first, x.grad


@case
def accumulation_is_in_place(torch):
    x = leaf(torch)
    (x * 2).sum().backward()
    kept = x.grad
    (x * 2).sum().backward()
    return kept is x.grad, kept


@case
def accumulation_with_create_graph_is_out_of_place(torch):
    x = leaf(torch)
    (x * 2).sum().backward()
    kept = x.grad
    (x * x).sum().backward(create_graph=True)
    return kept is x.grad, kept, x.grad


@case
def leaves_that_share_a_gradient(torch):
    a, b = leaf(torch), leaf(torch)
    (a + b).sum().backward()
    a.grad[0] = 99
    return a.grad, b.grad, a.grad.data_ptr() == b.grad.data_ptr()


@case
def leaf_added_to_itself(torch):
    a = leaf(torch)
    (a + a).backward(torch.ones(3))
    return a.grad


@case
def seed_is_not_taken_as_gradient(torch):
    a = leaf(torch)
    seed = torch.ones(3)
    (a + 0).backward(seed)
    a.grad.mul_(5)
    return seed, a.grad


@case
def seed_of_leaf(torch):
    a = leaf(torch)
    seed = torch.ones(3)
    a.backward(seed)
    a.grad.mul_(5)
    return seed, a.grad


@case
def second_backward(torch):
    x = leaf(torch)
    y = (x * x).sum()
    y.backward()
    return attempt(torch, y.backward)


@case
def second_backward_without_saved(torch):
    x = leaf(torch)
    y = (x + 1).sum()
    y.backward()
    return attempt(torch, y.backward), x.grad


@case
def retained_graph(torch):
    x = leaf(torch)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    return x.grad, attempt(torch, y.backward)


@case
def shared_part_freed(torch):
    x = leaf(torch)
    middle = x.exp()
    middle.sum().backward()
    return attempt(torch, lambda: (middle * 2).sum().backward())


@case
def version_of_saved_result(torch):
    x = leaf(torch)
    y = x.exp()
    y.add_(1)
    return attempt(torch, lambda: y.sum().backward())


@case
def version_of_saved_input(torch):
    x = leaf(torch)
    w = torch.ones(3)
    y = x * w
    w.add_(1)
    return attempt(torch, lambda: y.sum().backward())


@case
def version_of_saved_nonleaf(torch):
    x = leaf(torch)
    a = x * 2
    y = a * a
    a.add_(1)
    return attempt(torch, lambda: y.sum().backward())


@case
def version_of_leaf_under_no_grad(torch):
    x = leaf(torch)
    y = (x * x).sum()
    with torch.no_grad():
        x.add_(1)
    return attempt(torch, y.backward), x._version


@case
def version_is_not_changed_through_data(torch):
    x = leaf(torch)
    y = (x * x).sum()
    x.data.add_(1)
    y.backward()
    return x.grad, x._version


@case
def version_is_changed_through_detach(torch):
    x = leaf(torch)
    y = (x * x).sum()
    x.detach().add_(1)
    return attempt(torch, y.backward), x._version


@case
def no_version_error_where_not_saved(torch):
    x = leaf(torch)
    y = x + 1
    z = y * 2
    y.add_(1)
    z.sum().backward()
    return x.grad


@case
def leaf_flags(torch):
    x = leaf(torch)
    y = x * 2
    z = torch.ones(2)
    return [[t.is_leaf, t.requires_grad, t.grad_fn] for t in (x, y, z, y.detach(), x.detach())]


@case
def grad_of_nonleaf_warns(torch):
    x = leaf(torch)
    y = x * 2
    return y.grad


@case
def retain_grad(torch):
    x = leaf(torch)
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    before = y.retains_grad
    (y * y).sum().backward()
    return before, y.grad, x.grad, x.retains_grad


@case
def retain_grad_of_leaf(torch):
    x = leaf(torch)
    x.retain_grad()
    (x * 2).sum().backward()
    return x.grad, x.retains_grad, attempt(torch, torch.ones(2).retain_grad)


@case
def requires_grad_errors(torch):
    x = leaf(torch)
    y = x * 2

    def set_false():
        y.requires_grad = False

    return [
        attempt(torch, lambda: torch.ones(2, dtype=torch.int64).requires_grad_()),
        attempt(torch, lambda: torch.tensor([1, 2], requires_grad=True)),
        attempt(torch, lambda: torch.zeros(2, dtype=torch.bool, requires_grad=True)),
        attempt(torch, lambda: y.requires_grad_(False)),
        attempt(torch, set_false),
        attempt(torch, lambda: y.requires_grad_(True)),
        attempt(torch, lambda: torch.ones(2).requires_grad_(False)),
    ]


@case
def assigned_gradients(torch):
    x = leaf(torch)

    def assign(value):
        x.grad = value

    results = [
        attempt(torch, lambda: assign(torch.ones(2))),
        attempt(torch, lambda: assign(torch.ones(3, dtype=torch.float64))),
        attempt(torch, lambda: assign(1.0)),
        attempt(torch, lambda: assign(x)),
    ]
    assign(torch.ones(3))
    (x * 2).sum().backward()
    results.append(x.grad)
    x.grad = None
    results.append(x.grad)
    (x * 2).sum().backward()
    del x.grad
    return results, x.grad


@case
def backward_without_graph(torch):
    x = torch.ones(2)
    return attempt(torch, x.sum().backward), attempt(torch, lambda: torch.autograd.grad(x.sum(), x))


@case
def backward_of_many(torch):
    x = leaf(torch)
    return attempt(torch, (x * 2).backward)


@case
def gradient_of_wrong_shape(torch):
    x = leaf(torch)
    return (
        attempt(torch, lambda: (x * 2).backward(torch.ones(2))),
        attempt(torch, lambda: (x * 2).backward(torch.ones(1))),
        attempt(torch, lambda: torch.autograd.backward([x * 2], [torch.ones(3), torch.ones(3)])),
    )


@case
def gradient_argument(torch):
    x = leaf(torch)
    (x * 2).backward(gradient=torch.tensor([1.0, 10.0, 100.0]))
    return x.grad


@case
def backward_into_inputs(torch):
    a, b = leaf(torch), leaf(torch)
    (a * b).sum().backward(inputs=[a])
    return a.grad, b.grad, attempt(torch, lambda: (a * b).sum().backward(inputs=[]))


@case
def backward_into_one_tensor(torch):
    a, b = leaf(torch), leaf(torch)
    (a * b).sum().backward(inputs=b)
    return a.grad, b.grad


@case
def backward_into_nonleaf(torch):
    a = leaf(torch)
    b = a * 2
    (b * b).sum().backward(inputs=[b])
    return b.grad, a.grad


@case
def backward_of_several_outputs(torch):
    x = leaf(torch)
    torch.autograd.backward([(x * 2).sum(), (x * x).sum()])
    return x.grad


@case
def backward_of_output_that_feeds_another(torch):
    x = leaf(torch)
    y = x * 2
    z = (y * y).sum()
    torch.autograd.backward([z, y], [None, torch.ones(3)])
    return x.grad


@case
def grad_function(torch):
    x, y = leaf(torch), leaf(torch)
    z = (x * x * y).sum()
    found = torch.autograd.grad(z, [x, y])
    return found, x.grad, y.grad


@case
def grad_of_unused(torch):
    x, y = leaf(torch), leaf(torch)
    z = (x * x).sum()
    return [
        attempt(torch, lambda: torch.autograd.grad(z, [x, y], retain_graph=True)),
        attempt(
            torch, lambda: torch.autograd.grad(z, [x, y], retain_graph=True, allow_unused=True)
        ),
        attempt(torch, lambda: torch.autograd.grad(z, [x, y], materialize_grads=True)),
        attempt(torch, lambda: torch.autograd.grad(x.sum(), torch.ones(2))),
        attempt(
            torch,
            lambda: torch.autograd.grad(x.sum(), x, allow_unused=False, materialize_grads=True),
        ),
    ]


@case
def grad_of_nonleaf(torch):
    x = leaf(torch)
    y = x * 2
    return torch.autograd.grad((y * y).sum(), [y, x])


@case
def grad_of_output_itself(torch):
    x = leaf(torch)
    y = (x * x).sum()
    return torch.autograd.grad(y, [y, x])


@case
def grad_with_vectors(torch):
    x = leaf(torch)
    outputs = (x * 2, x * x)
    return torch.autograd.grad(outputs, x, (torch.ones(3), torch.tensor([1.0, 0.0, 2.0])))


@case
def grad_stops_at_inputs(torch):
    log = []
    x = leaf(torch)
    y = x * 2
    x.register_hook(lambda g: log.append(g.tolist()))
    torch.autograd.grad((y * y).sum(), y)
    return log


@case
def double_backward(torch):
    x = leaf(torch)
    (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x, create_graph=True)
    (k,) = torch.autograd.grad(h.sum(), x)
    return g, h, k


@case
def double_backward_through_backward(torch):
    x = leaf(torch)
    (x**3).sum().backward(create_graph=True)
    g = x.grad
    x.grad = None
    (g * g).sum().backward()
    return g.requires_grad, x.grad


@case
def gradient_penalty(torch):
    w = torch.linspace(-1, 1, 6).reshape(2, 3).requires_grad_()
    x = leaf(torch)
    y = torch.tanh(w @ x).sum()
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    (g.norm() - 1).pow(2).backward()
    return w.grad, x.grad


@case
def gradient_without_create_graph_requires_none(torch):
    x = leaf(torch)
    (g,) = torch.autograd.grad((x * x).sum(), x)
    return g.requires_grad, g.grad_fn


@case
def names_of_nodes(torch):
    x = torch.ones(2, 3, requires_grad=True)
    results = [
        x + 1,
        x - 1,
        x * 2,
        x / 2,
        2 / x,
        1 - x,
        -x,
        x**2,
        2**x,
        x**x,
        x @ x.t(),
        x.sum(),
        x.sum(0),
        x.mean(),
        x.mean(1),
        x.exp(),
        x.log(),
        x.relu(),
        x.sigmoid(),
        x.tanh(),
        x.view(6),
        x.reshape(6),
        x.reshape(3, 2),
        x.t(),
        x.t().reshape(6),
        x.transpose(0, 1),
        x.permute(1, 0),
        x[0],
        x[:, 1],
        x[0:1],
        x[..., None],
        x[[0, 1]],
        x[x > 0],
        x.expand(4, 2, 3),
        x.unsqueeze(0),
        x.squeeze(),
        x.clone(),
        x.contiguous(),
        x.double(),
        x.abs(),
        x.max(),
        x.max(0)[0],
        x.amax(0),
        x.var(),
        x.std(),
        x.norm(),
        torch.cat([x, x]),
        torch.stack([x, x]),
        x.flatten(),
        torch.where(x > 0, x, 0.0),
        x.clamp(0),
        x.softmax(0),
        x.log_softmax(1),
        x.prod(),
        x.cumsum(0),
        x.gather(0, torch.zeros(1, 3, dtype=torch.int64)),
        x.index_select(0, torch.tensor([0])),
        x.masked_fill(x > 0, 1.0),
        x.repeat(2, 1),
        x.flip(0),
        x.tril(),
        x.diagonal(),
        x.narrow(0, 0, 1),
        x.select(0, 1),
        x.detach(),
        x.sort()[0],
        x.topk(2)[0],
        x.split(1)[0],
        x.chunk(2)[1],
        x.unbind()[0],
        x.addmm(x, torch.ones(3, 3)),
        torch.bmm(x[None], x.t()[None]),
        x.roll(1),
        x.sqrt(),
        x.rsqrt(),
        x.sin(),
        x.lerp(x, 0.5),
        x.maximum(x),
        x.as_strided((2,), (1,)),
        torch.nn.functional.linear(x, x),
        torch.nn.functional.gelu(x),
        torch.nn.functional.leaky_relu(x),
        torch.nn.functional.mse_loss(x, x * 2),
        torch.nn.functional.dropout(x),
        x.pow(x),
        x.square(),
        torch.nn.functional.cross_entropy(x, torch.tensor([0, 1])),
        torch.nn.functional.layer_norm(x, (3,)),
        torch.nn.functional.elu(x),
        torch.nn.functional.softplus(x),
        torch.nn.functional.silu(x),
    ]
    return [None if r.grad_fn is None else r.grad_fn.name() for r in results]


@case
def next_functions(torch):
    x, y = leaf(torch), leaf(torch)
    constant = torch.ones(3)
    z = (x * 2 + y) * constant

    def walk(node, depth):
        if node is None:
            return None
        inner = [[walk(n, depth + 1), k] for n, k in node.next_functions]
        return [node.name(), inner]

    return walk(z.grad_fn, 0)


@case
def next_functions_of_outputs(torch):
    x = leaf(torch)
    values, _ = x.max(0)
    parts = x.split(1)
    return [values.output_nr, [p.output_nr for p in parts], x.output_nr]


@case
def accumulate_node(torch):
    x = leaf(torch)
    node = (x * 2).grad_fn.next_functions[0][0]
    again = (x * 3).grad_fn.next_functions[0][0]
    return node.name(), type(node).__name__, node.variable is x, node is again


@case
def text_of_node(torch):
    x = leaf(torch)
    return str((x * 2).grad_fn).split(" at ")[0], type((x * 2).grad_fn).__name__


@case
def detached(torch):
    x = leaf(torch)
    y = x * 2
    d = y.detach()
    d[0] = 50
    return y, d, d._version, y._version, d.data_ptr() == y.data_ptr()


@case
def detach_in_place(torch):
    x = leaf(torch)
    y = x * 2
    returned = y.detach_()
    return returned is y, y, attempt(torch, lambda: (x * 2)[0:1].detach_())


@case
def gradient_flows_once_through_diamond(torch):
    x = leaf(torch)
    a = x * 2
    b = a.exp() + a.sin() + a
    c = b * a
    c.sum().backward()
    return x.grad


@case
def deep_chain(torch):
    x = leaf(torch)
    y = x
    for _ in range(3000):
        y = y + 1
    y.sum().backward()
    return x.grad


@case
def broadcast_gradients(torch):
    a = torch.ones(3, 1, requires_grad=True)
    b = torch.arange(4.0).requires_grad_()
    c = torch.tensor(2.0, requires_grad=True)
    (a * b * c).sum().backward()
    return a.grad, b.grad, c.grad


@case
def mixed_types(torch):
    a = leaf(torch)
    b = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (a * b).sum().backward()
    return a.grad, b.grad


@case
def half_and_single(torch):
    a = leaf(torch)
    (a.half() * 2).float().sum().backward()
    return a.grad


@case
def unneeded_branch_is_not_walked(torch):
    a, b = leaf(torch), leaf(torch)
    y = (a * b.detach()).sum()
    y.backward()
    return a.grad, b.grad


@case
def gradient_layout_follows_leaf(torch):
    x = torch.arange(6.0).reshape(2, 3).t().requires_grad_()
    (x * 2).sum().backward()
    other = torch.arange(6.0).reshape(2, 3).requires_grad_()
    (other.t() * torch.arange(6.0).reshape(3, 2)).sum().backward()
    return x.grad, other.grad


@case
def gradient_of_expanded_sum(torch):
    x = leaf(torch)
    x.sum().backward()
    x.grad[0] = 5
    return x.grad


@case
def clone_and_to_keep_history(torch):
    x = leaf(torch)
    y = x.clone().to(torch.float64).float()
    y.sum().backward()
    return y, x.grad


@case
def to_itself_is_the_same_leaf(torch):
    x = leaf(torch)
    return x.to(torch.float32) is x, x.contiguous() is x, x.float() is x, x.cpu() is x


@case
def integer_results_leave_the_graph(torch):
    x = leaf(torch)
    return [
        (x > 1).requires_grad,
        x.argmax().requires_grad,
        x.long().requires_grad,
        x.sort()[1].requires_grad,
    ]


@case
def inputs_may_repeat(torch):
    x = leaf(torch)
    return torch.autograd.grad((x * x).sum(), [x, x])


@case
def view_of_leaf(torch):
    x = leaf(torch)
    v = x[1:]
    (v * v).sum().backward()
    return v, v.is_leaf, x.grad, v._base is x


@case
def old_keyword_retain_variables(torch):
    x = leaf(torch)
    y = (x * x).sum()
    return attempt(torch, lambda: y.backward(wrong=True))


@case
def checks_of_gradcheck(torch):
    x = torch.tensor([0.5, -1.5], dtype=torch.float64, requires_grad=True)
    return [
        torch.autograd.gradcheck(lambda t: t.sin() * t, (x,)),
        torch.autograd.gradgradcheck(lambda t: t.sin() * t, (x,)),
        torch.autograd.gradcheck(lambda t: t.detach() * t, (x,), raise_exception=False),
    ]


@case
def anomaly_switch(torch):
    x = leaf(torch)
    with torch.autograd.set_detect_anomaly(False):
        (x * 2).sum().backward()
    return x.grad


@case
def jacobian_and_hessian(torch):
    x = leaf(torch)
    return [
        torch.autograd.functional.jacobian(lambda t: t * t, x),
        torch.autograd.functional.hessian(lambda t: (t**3).sum(), x),
        torch.autograd.functional.vjp(lambda t: t * t, x, torch.ones(3)),
    ]
