"""Programs about in-place writes under autograd; see `tests/semantics.py`."""

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def leaf(torch, *shape):
    shape = shape or (2, 3)
    count = 1
    for n in shape:
        count *= n
    return (torch.arange(float(count)) + 1).reshape(shape).requires_grad_()


def weights(torch, *shape):
    shape = shape or (2, 3)
    count = 1
    for n in shape:
        count *= n
    return (torch.arange(float(count)) * 0.5 + 1).reshape(shape)


def finish(torch, y, *leaves):
    """Values, history and gradients, the gradient seeded unevenly."""
    y.backward(weights(torch, *y.shape))
    return [y, *(t.grad for t in leaves)]


@case
def leaf_errors(torch):
    x = leaf(torch)

    def assign(index):
        x[index] = 1.0

    return [
        attempt(torch, lambda: x.add_(1)),
        attempt(torch, lambda: assign(0)),
        attempt(torch, lambda: x.view(6).add_(1)),
        attempt(torch, lambda: x[0].mul_(2)),
        attempt(torch, lambda: x.zero_()),
        attempt(torch, lambda: x.fill_(2)),
        attempt(torch, lambda: x.copy_(torch.ones(2, 3))),
        attempt(torch, lambda: x.detach().zero_()),
        attempt(torch, lambda: x.data.zero_()),
        attempt(torch, lambda: x.t_()),
        attempt(torch, lambda: x.resize_(6)),
        attempt(torch, lambda: x.normal_()),
    ]


@case
def chain_of_writes(torch):
    x = leaf(torch)
    y = x * 2
    y.mul_(3).add_(x).sub_(1)
    return finish(torch, y, x)


@case
def augmented_assignment(torch):
    x = leaf(torch)
    y = x * 1
    before = y
    y += x
    y *= 2
    y -= 1
    y /= 4
    y **= 2
    return [before is y, *finish(torch, y, x)]


@case
def row_of_nonleaf(torch):
    x = leaf(torch)
    y = x * 1
    y[0] += 1
    y[1] *= 5
    return [y.grad_fn.name(), *finish(torch, y, x)]


@case
def row_assigned(torch):
    x, v = leaf(torch), leaf(torch, 3)
    y = x * 2
    y[1] = v
    return [y.grad_fn.name(), *finish(torch, y, x, v)]


@case
def number_assigned(torch):
    x = leaf(torch)
    y = x * 2
    y[0, 1:] = 7.0
    return finish(torch, y, x)


@case
def base_is_constant(torch):
    v = leaf(torch, 3)
    y = torch.zeros(2, 3)
    y[0] = v
    return [y.requires_grad, y.is_leaf, *finish(torch, y, v)]


@case
def view_first_then_base(torch):
    x = leaf(torch)
    y = x * 1
    v = y[0]
    y.mul_(2)
    return [v, v.grad_fn.name(), *finish(torch, v, x)]


@case
def view_written(torch):
    x = leaf(torch)
    y = x * 1
    v = y[0]
    v.mul_(10)
    return [v.grad_fn.name(), y.grad_fn.name(), *finish(torch, y, x)]


@case
def view_written_and_used(torch):
    x = leaf(torch)
    y = x * 1
    v = y[0]
    v.exp_()
    total = (v * v).sum() + y.sum()
    total.backward()
    return x.grad


@case
def second_view_sees_the_write(torch):
    x = leaf(torch)
    y = x * 1
    a, b = y[0], y.t()
    a.mul_(10)
    return [b, b.grad_fn.name(), *finish(torch, b, x)]


@case
def slices_of_slices(torch):
    x = leaf(torch, 4, 5)
    y = x * 1
    v = y[1:][:, 2:]
    v[1].mul_(3)
    v[:, 0].add_(v[:, 1])
    return finish(torch, y, x)


@case
def transposed(torch):
    x = leaf(torch)
    y = x * 1
    y.t().mul_(2)
    y.t()[1].mul_(3)
    return finish(torch, y, x)


@case
def view_reshaped_write(torch):
    x = leaf(torch)
    y = x * 1
    y.view(6)[2:4].mul_(torch.tensor([10.0, 100.0]))
    return finish(torch, y, x)


@case
def base_not_contiguous(torch):
    x = leaf(torch, 3, 2)
    y = (x * 1).t().clone()
    y[0].mul_(4)
    z = (x * 1).t()
    z[0].mul_(4)
    return [y.stride(), z.stride(), *finish(torch, z, x)]


@case
def diagonal_written(torch):
    x = leaf(torch, 3, 3)
    y = x * 1
    y.diagonal().mul_(2)
    return finish(torch, y, x)


@case
def diagonal_filled(torch):
    x = leaf(torch, 3, 3)
    y = x * 1
    y.diagonal().fill_(9)
    return finish(torch, y, x)


@case
def expanded_write_fails(torch):
    x = torch.ones(1, 3)
    return [
        attempt(torch, lambda: x.expand(2, 3).add_(1)),
        attempt(torch, lambda: x.expand(2, 3).zero_()),
        attempt(torch, lambda: x.expand(2, 3).copy_(torch.ones(2, 3))),
        attempt(torch, lambda: torch.add(x, x, out=x.expand(2, 3))),
    ]


@case
def mask_assigned(torch):
    x = leaf(torch)
    y = x * 1
    y[y > 3] = 0.0
    return [y.grad_fn.name(), *finish(torch, y, x)]


@case
def mask_assigned_from_tensor(torch):
    x, v = leaf(torch), leaf(torch, 3)
    y = x * 1
    y[y > 3] = v
    return finish(torch, y, x, v)


@case
def index_assigned(torch):
    x, v = leaf(torch), leaf(torch, 2)
    y = x * 1
    y[[0, 1], [2, 0]] = v
    return finish(torch, y, x, v)


@case
def index_of_view_assigned(torch):
    x, v = leaf(torch, 4, 3), leaf(torch, 2)
    y = x * 1
    y[1:3, [0, 2]] = v
    return finish(torch, y, x, v)


@case
def index_added(torch):
    x = leaf(torch)
    y = x * 1
    y[:, [0, 0]] += 1.0
    return finish(torch, y, x)


@case
def broadcast_into_row(torch):
    x, v = leaf(torch), leaf(torch, 1)
    y = x * 1
    y[:] = v
    return finish(torch, y, x, v)


@case
def copy_with_conversion(torch):
    x = leaf(torch)
    y = torch.zeros(2, 3, dtype=torch.float64)
    y.copy_(x)
    return finish(torch, y.float(), x)


@case
def copy_broadcast(torch):
    x = leaf(torch, 3)
    y = torch.zeros(2, 3)
    y.copy_(x)
    return finish(torch, y, x)


@case
def fill_with_tensor(torch):
    x, v = leaf(torch), torch.tensor(3.0, requires_grad=True)
    y = x * 1
    y[0].fill_(v)
    return finish(torch, y, x, v)


@case
def zero_cuts_history(torch):
    x = leaf(torch)
    y = x * 1
    y.zero_()
    return [y.grad_fn.name(), *finish(torch, y, x)]


@case
def relu_in_place(torch):
    x = leaf(torch)
    y = x - 3
    torch.relu_(y)
    return finish(torch, y, x)


@case
def functional_in_place(torch):
    x = leaf(torch)
    y = torch.nn.functional.relu(x - 3, inplace=True)
    z = torch.nn.functional.leaky_relu(x - 3, inplace=True)
    return finish(torch, y + z, x)


@case
def unary_that_saves_its_result(torch):
    x = leaf(torch)
    y = x * 0.1
    y.tanh_().sigmoid_().exp_().sqrt_()
    return finish(torch, y, x)


@case
def saved_tensor_overwritten(torch):
    x = leaf(torch)
    y = x * 1
    z = y.sigmoid()
    z[0] = 0.0
    return attempt(torch, lambda: z.sum().backward())


@case
def saved_base_overwritten_through_view(torch):
    x = leaf(torch)
    y = x * 1
    z = y * y
    y.view(6)[0] = 5.0
    return attempt(torch, lambda: z.sum().backward())


@case
def masked_fill_in_place(torch):
    x = leaf(torch)
    y = x * 1
    y.masked_fill_(x.detach() > 2, -1.0)
    return finish(torch, y, x)


@case
def where_and_clamp(torch):
    x = leaf(torch)
    y = x * 1
    y.clamp_(2, 5)
    return finish(torch, y, x)


@case
def scatter_in_place(torch):
    x, v = leaf(torch), leaf(torch, 1, 3)
    y = x * 1
    y.scatter_(0, torch.tensor([[0, 1, 0]]), v)
    return finish(torch, y, x, v)


@case
def index_add_in_place(torch):
    x, v = leaf(torch), leaf(torch, 3, 3)
    y = x * 1
    y.index_add_(0, torch.tensor([0, 1, 1]), v)
    return finish(torch, y, x, v)


@case
def index_fill_and_copy(torch):
    x, v = leaf(torch), leaf(torch, 1, 3)
    y = x * 1
    y.index_copy_(0, torch.tensor([1]), v)
    y.index_fill_(1, torch.tensor([2]), 4.0)
    return finish(torch, y, x, v)


@case
def products_in_place(torch):
    a, b, c = leaf(torch, 2, 3), leaf(torch, 3, 2), leaf(torch, 2, 2)
    y = c * 1
    y.addmm_(a, b, beta=0.5, alpha=2)
    return finish(torch, y, a, b, c)


@case
def addcmul_in_place(torch):
    x = leaf(torch)
    y = x * 1
    y.addcmul_(x, x, value=0.5).addcdiv_(x, x + 1, value=2).lerp_(x, 0.25)
    return finish(torch, y, x)


@case
def squeeze_in_place(torch):
    x = leaf(torch, 1, 3)
    y = x * 1
    y.squeeze_()
    shape = list(y.shape)
    y.unsqueeze_(1)
    y = y.view(3)
    return [shape, *finish(torch, y, x)]


@case
def split_views_written(torch):
    x = leaf(torch, 4)
    y = x * 1
    a, b = y.split(2)
    return attempt(torch, lambda: a.mul_(2))


@case
def unbind_views_written(torch):
    x = leaf(torch, 2, 2)
    y = x * 1
    return attempt(torch, lambda: y.unbind()[0].mul_(2))


@case
def chunk_of_plain_tensor_written(torch):
    y = torch.zeros(4)
    a, b = y.chunk(2)
    a.add_(1)
    return y


@case
def written_under_no_grad(torch):
    x = leaf(torch)
    y = x * 1
    with torch.no_grad():
        y[0] = 100.0
        y.mul_(2)
    return finish(torch, y, x)


@case
def out_argument(torch):
    x = leaf(torch)
    target = torch.zeros(2, 3)
    return [
        attempt(torch, lambda: torch.add(x, 1, out=target)),
        attempt(torch, lambda: torch.add(torch.ones(2, 3), 1, out=x)),
        attempt(torch, lambda: torch.add(x.detach(), 1, out=target)),
        attempt(torch, lambda: torch.exp(torch.ones(2), out=torch.zeros(2, dtype=torch.int64))),
        attempt(torch, lambda: torch.add(torch.ones(2), 1, out=torch.zeros(3))),
        attempt(torch, lambda: torch.add(torch.ones(2), 1, out=torch.zeros(0))),
    ]


@case
def out_under_no_grad(torch):
    x = leaf(torch)
    with torch.no_grad():
        torch.mul(x, 2, out=x)
    return x


@case
def out_into_view(torch):
    y = torch.zeros(4, 3)
    torch.add(torch.ones(3), 2, out=y[1])
    torch.mm(torch.eye(3)[:2], torch.arange(9.0).reshape(3, 3), out=y[2:])
    return y


@case
def out_that_is_an_operand(torch):
    x = torch.arange(4.0)
    torch.add(x, x, out=x)
    torch.mul(x, 3, out=x)
    m = torch.arange(4.0).reshape(2, 2)
    torch.mm(m, m.clone(), out=m)
    return x, m


@case
def overlapping_operands(torch):
    x = torch.arange(6.0)
    return [
        attempt(torch, lambda: x[1:].add_(x[:-1])),
        attempt(torch, lambda: x[1:].copy_(x[:-1].clone())),
        attempt(torch, lambda: torch.add(x[:-1], 1, out=x[1:])),
        x,
    ]


@case
def write_through_transposed_self(torch):
    x = torch.arange(4.0).reshape(2, 2)
    return attempt(torch, lambda: x.add_(x.t()))


@case
def type_errors(torch):
    ints = torch.zeros(2, dtype=torch.int64)
    return [
        attempt(torch, lambda: ints.add_(1.5)),
        attempt(torch, lambda: ints.div_(2)),
        attempt(torch, lambda: ints.add_(torch.ones(2))),
        attempt(torch, lambda: ints.mul_(True)),
        attempt(torch, lambda: torch.zeros(2, dtype=torch.bool).add_(1)),
        attempt(torch, lambda: torch.zeros(2).add_(torch.ones(3))),
        attempt(torch, lambda: torch.zeros(2).add_(torch.ones(2, 2))),
        attempt(torch, lambda: ints.exp_()),
        attempt(torch, lambda: ints.copy_(torch.tensor([1.9, -1.9]))),
        attempt(torch, lambda: torch.zeros(2).copy_(torch.ones(3))),
    ]


@case
def versions_count_writes(torch):
    x = torch.zeros(4)
    log = [x._version]
    x.add_(1)
    log.append(x._version)
    x[0] = 1
    log.append(x._version)
    x.view(2, 2).mul_(2)
    log.append(x._version)
    x.detach().zero_()
    log.append(x._version)
    x.data.zero_()
    log.append(x._version)
    torch.add(x, 1, out=x)
    log.append(x._version)
    x.fill_(1)
    x.uniform_()
    log.append(x._version)
    x[torch.tensor([0, 1])] = 2.0
    log.append(x._version)
    x.copy_(torch.ones(4))
    log.append(x._version)
    return log


@case
def chained_views_and_late_backward(torch):
    x = leaf(torch, 2, 2, 3)
    y = x * 1
    a = y[0]
    b = a[:, 1:]
    b.mul_(2)
    a.add_(1)
    c = y.view(4, 3)[3]
    c.copy_(b[0].sum() * torch.ones(3))
    return finish(torch, y, x)


@case
def accumulating_loop(torch):
    x = leaf(torch, 3)
    total = torch.zeros(3)
    for k in range(4):
        total += x * k
    return finish(torch, total, x)


@case
def filled_row_by_row(torch):
    x = leaf(torch, 3)
    rows = torch.empty(4, 3)
    for k in range(4):
        rows[k] = x * k
    return finish(torch, rows, x)


@case
def read_while_writing_rows(torch):
    x = leaf(torch, 3)
    state = torch.zeros(4, 3)
    state[0] = x
    values = [state[0].clone()]
    for k in range(1, 4):
        values.append(values[-1] * 2)
        state[k] = values[-1]
    return finish(torch, state, x)


@case
def view_kept_from_before_history(torch):
    y = torch.zeros(2, 3)
    v = y[0]
    x = leaf(torch, 3)
    y.add_(x)
    return [v.requires_grad, v.is_leaf, v.grad_fn.name(), *finish(torch, v, x)]


@case
def base_gets_history_through_view(torch):
    y = torch.zeros(2, 3)
    v = y.view(6)
    x = leaf(torch, 6)
    v.copy_(x)
    return [y.requires_grad, y.grad_fn.name(), v.grad_fn.name(), *finish(torch, y, x)]


@case
def detached_view_stays_detached(torch):
    x = leaf(torch)
    y = x * 1
    d = y.detach()
    y.mul_(2)
    return d, d.requires_grad


@case
def view_of_half_converted(torch):
    x = leaf(torch)
    y = (x * 1).double()
    y[0] = x[1]
    return finish(torch, y, x)


@case
def set_item_with_other_types(torch):
    x = torch.zeros(4)
    x[0] = True
    x[1] = 2
    x[2] = torch.tensor(3, dtype=torch.int64)
    x[3] = torch.tensor([4.0])
    y = torch.zeros(2, dtype=torch.int64)
    y[0] = 1.9
    return x, y


@case
def shared_gradient_memory(torch):
    a = leaf(torch)
    y = a.view(6)
    z = a.t()
    (y.sum() + z.sum()).backward()
    a.grad[0, 0] = 50
    return a.grad
