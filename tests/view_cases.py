"""Programs about views, aliasing and storages; see `tests/semantics.py`."""

import copy
import pickle

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def numbers(torch, *shape):
    count = 1
    for n in shape:
        count *= n
    return torch.arange(float(count)).reshape(shape).clone()


@case
def every_view_writes_through(torch):
    makers = {
        "view": lambda x: x.view(12),
        "reshape": lambda x: x.reshape(6, 2),
        "t": lambda x: x.t(),
        "T": lambda x: x.T,
        "mT": lambda x: x.mT,
        "H": lambda x: x.H,
        "transpose": lambda x: x.transpose(0, 1),
        "swapaxes": lambda x: x.swapaxes(0, 1),
        "permute": lambda x: x.permute(1, 0),
        "expand": lambda x: x[:, :1].expand(3, 1),
        "expand_as": lambda x: x[:1].expand_as(torch.ones(1, 4)),
        "unsqueeze": lambda x: x.unsqueeze(1),
        "squeeze": lambda x: x[None].squeeze(),
        "select": lambda x: x.select(0, 1),
        "narrow": lambda x: x.narrow(1, 1, 2),
        "diagonal": lambda x: x.diagonal(),
        "as_strided": lambda x: x.as_strided((2, 2), (4, 1), 1),
        "flatten": lambda x: x.flatten(),
        "ravel": lambda x: x.ravel(),
        "unflatten": lambda x: x.unflatten(1, (2, 2)),
        "view_as": lambda x: x.view_as(torch.ones(2, 6)),
        "chunk": lambda x: x.chunk(2)[1],
        "split": lambda x: x.split(1)[2],
        "unbind": lambda x: x.unbind()[0],
        "movedim": lambda x: x.movedim(0, 1),
        "detach": lambda x: x.detach(),
        "data": lambda x: x.data,
        "index": lambda x: x[1],
        "slice": lambda x: x[::2, 1:3],
        "ellipsis": lambda x: x[..., 0],
        "none": lambda x: x[None],
        "all": lambda x: x[:],
        "unfold": lambda x: x.unfold(1, 2, 2),
        "hsplit": lambda x: x.hsplit(2)[0],
        "vsplit": lambda x: x.vsplit(3)[0],
        "tensor_split": lambda x: x.tensor_split(2)[0],
        "atleast_3d": lambda x: torch.atleast_3d(x),
        "positive": lambda x: x.positive(),
        "view_dtype": lambda x: x.view(torch.float32),
        "real": lambda x: x.real,
    }
    results = {}
    for name, make in makers.items():
        x = numbers(torch, 3, 4)
        v = attempt(torch, lambda make=make, x=x: make(x))
        if isinstance(v, list):
            results[name] = v
            continue
        view = make(x)
        view.fill_(-1)
        results[name] = [
            list(view.shape),
            list(view.stride()),
            view.storage_offset(),
            x,
            view._base is x,
            view._is_view(),
        ]
    return results


@case
def copies_do_not_write_through(torch):
    makers = {
        "clone": lambda x: x.clone(),
        "reshape": lambda x: x.t().reshape(12),
        "contiguous": lambda x: x.t().contiguous(),
        "flatten": lambda x: x.t().flatten(),
        "index": lambda x: x[[0, 1]],
        "mask": lambda x: x[x > 3],
        "repeat": lambda x: x.repeat(1, 1),
        "flip": lambda x: x.flip(0),
        "to": lambda x: x.to(torch.float32, copy=True),
        "double": lambda x: x.double(),
        "cat": lambda x: torch.cat([x]),
        "tensor": lambda x: torch.tensor(x.tolist()),
    }
    results = {}
    for name, make in makers.items():
        x = numbers(torch, 3, 4)
        view = make(x)
        view.fill_(-1)
        results[name] = [list(view.stride()), bool((x == numbers(torch, 3, 4)).all())]
    return results


@case
def base_of_views(torch):
    x = numbers(torch, 3, 4)
    v = x[1]
    w = v[2:]
    return (
        v._base is x,
        w._base is x,
        x._base,
        x.detach()._base,
        x.data._base,
        x._is_view(),
        w._is_view(),
    )


@case
def strides_of_results(torch):
    x = numbers(torch, 2, 3, 4)
    makers = [
        x.permute(2, 0, 1) + 1,
        x.permute(2, 0, 1) + torch.ones(4, 2, 3),
        x.transpose(0, 1).exp(),
        x[:, :, ::2] * 2,
        x[:, :1].expand(2, 3, 4) * 2,
        x.permute(2, 0, 1).clone(),
        x[:, :, ::2].clone(),
        x[:, :1].expand(2, 3, 4).clone(),
        x.permute(2, 0, 1).clone(memory_format=torch.contiguous_format),
        x.permute(2, 0, 1).contiguous(),
        torch.empty_like(x.permute(2, 0, 1)),
        torch.zeros_like(x[:, :, ::2]),
        torch.ones_like(x.expand(2, 2, 3, 4)),
        x.permute(2, 0, 1).double(),
        x.t() if x.ndim == 2 else x[0].t() + x[0].t(),
        torch.where(x.permute(2, 0, 1) > 1, x.permute(2, 0, 1), 0.0),
    ]
    return [[list(t.shape), list(t.stride())] for t in makers]


@case
def contiguity(torch):
    x = numbers(torch, 2, 3)
    makers = [
        x,
        x.t(),
        x[:, :1],
        x[:1],
        x[:, 0],
        x.expand(2, 2, 3),
        x[:0],
        x[None],
        x.t()[None],
        torch.tensor(1.0),
    ]
    return [[t.is_contiguous(), t.contiguous().is_contiguous()] for t in makers]


@case
def view_errors(torch):
    x = numbers(torch, 2, 3)
    return [
        attempt(torch, lambda: x.t().view(6)),
        attempt(torch, lambda: x.view(5)),
        attempt(torch, lambda: x.view(-1, -1)),
        attempt(torch, lambda: x.view(-2, 3)),
        attempt(torch, lambda: x.view(4, -1)),
        attempt(torch, lambda: x.reshape(7)),
        attempt(torch, lambda: x.reshape(-1, 4)),
        attempt(torch, lambda: x[:0].view(-1, 0)),
        attempt(torch, lambda: x.expand(3, 3)),
        attempt(torch, lambda: x.expand(3)),
        attempt(torch, lambda: x.expand(-1, 2, 3)),
        attempt(torch, lambda: x.permute(0)),
        attempt(torch, lambda: x.permute(0, 0)),
        attempt(torch, lambda: x.permute(0, 5)),
        attempt(torch, lambda: x.transpose(0, 2)),
        attempt(torch, lambda: numbers(torch, 2, 2, 2).t()),
        attempt(torch, lambda: x.squeeze(3)),
        attempt(torch, lambda: x.unsqueeze(4)),
        attempt(torch, lambda: x.select(0, 2)),
        attempt(torch, lambda: x.select(2, 0)),
        attempt(torch, lambda: x.narrow(0, 1, 5)),
        attempt(torch, lambda: x.narrow(0, 1, -1)),
        attempt(torch, lambda: x.diagonal(0, 0, 0)),
        attempt(torch, lambda: x.as_strided((10,), (1,))),
        attempt(torch, lambda: x.as_strided((2,), (-1,))),
        attempt(torch, lambda: x.as_strided((2,), (1, 1))),
        attempt(torch, lambda: x.flatten(1, 0)),
        attempt(torch, lambda: x.flatten(5)),
        attempt(torch, lambda: x.split(0)),
        attempt(torch, lambda: x.split(-1)),
        attempt(torch, lambda: x.split([1, 2])),
        attempt(torch, lambda: x.chunk(0)),
        attempt(torch, lambda: x.unbind(2)),
        attempt(torch, lambda: x.unflatten(1, (2, 2))),
        attempt(torch, lambda: torch.tensor(1.0).chunk(2)),
        attempt(torch, lambda: torch.tensor(1.0).T),
        attempt(torch, lambda: torch.tensor(1.0).mT),
        attempt(torch, lambda: x.size(5)),
        attempt(torch, lambda: x.stride(5)),
        attempt(torch, lambda: x.movedim(0, 4)),
        attempt(torch, lambda: x.view(torch.int32)),
        attempt(torch, lambda: x.view(torch.float64)),
        attempt(torch, lambda: x.view(torch.uint8)),
        attempt(torch, lambda: numbers(torch, 2, 4).view(torch.float64).shape),
    ]


@case
def transposes_of_other_ranks(torch):
    return [
        attempt(torch, lambda: numbers(torch, 3).T),
        attempt(torch, lambda: numbers(torch, 2, 2, 2).T),
        attempt(torch, lambda: numbers(torch, 2, 2, 2).mT),
        attempt(torch, lambda: numbers(torch, 3).mT),
        attempt(torch, lambda: numbers(torch, 2, 2, 2).H),
        attempt(torch, lambda: numbers(torch, 3).H),
    ]


@case
def sizes(torch):
    x = numbers(torch, 2, 3, 4)
    return [
        x.size(),
        x.size(0),
        x.size(-1),
        x.stride(),
        x.stride(1),
        x.dim(),
        x.numel(),
        x.nelement(),
        x.element_size(),
        x.itemsize,
        x.nbytes,
        x.ndimension(),
        type(x.shape).__name__,
        x.shape.numel(),
        x.shape[1:],
        type(x.shape[1:]).__name__,
        x.shape + (5,),
        str(x.shape),
        x.shape == (2, 3, 4),
        list(torch.Size([1, 2])),
        x.storage_offset(),
        x[1].storage_offset(),
        x[1, 2:].storage_offset(),
    ]


@case
def data_attribute(torch):
    x = torch.ones(2, requires_grad=True)
    d = x.data
    d[0] = 5
    return x, d.requires_grad, d is x.data, d.data_ptr() == x.data_ptr()


@case
def data_assigned(torch):
    x = torch.ones(2, requires_grad=True)
    y = torch.arange(3.0)

    def assign(value):
        x.data = value

    assign(y)
    y[0] = 9
    shape = list(x.shape)
    (x * x).sum().backward()
    return [
        shape,
        x,
        x.grad,
        x.data_ptr() == y.data_ptr(),
        attempt(torch, lambda: assign(5)),
        attempt(torch, lambda: assign(torch.ones(2, dtype=torch.int64))),
        attempt(torch, lambda: assign(torch.ones(2, dtype=torch.float64))),
        str(x.dtype),
    ]


@case
def set_shares(torch):
    x, y = torch.zeros(2), torch.arange(6.0)
    returned = x.set_(y)
    y[0] = 7
    z = torch.empty(0).set_(y.untyped_storage(), 2, (2, 2), (2, 1))
    w = torch.zeros(3)
    w.set_()
    return returned is x, x, x.is_set_to(y), z, list(w.shape)


@case
def resize(torch):
    x = torch.arange(6.0)
    pointer = x.data_ptr()
    smaller = x.clone().resize_(2, 2)
    x.resize_(2, 2)
    same = x.data_ptr() == pointer
    x.resize_(6)
    grown = torch.arange(3.0).resize_(2, 3)
    return (
        smaller,
        same,
        x,
        grown[0],
        list(grown.shape),
        attempt(torch, lambda: torch.ones(2, requires_grad=True).resize_(3)),
    )


@case
def resize_of_view(torch):
    x = torch.arange(6.0)
    v = x[2:4]
    v.resize_(3)
    t = torch.arange(6.0).reshape(2, 3).t()
    t.resize_(6)
    return v, x, t, x.resize_as_(torch.ones(2, 2))


@case
def storages(torch):
    x = torch.arange(6.0)
    s = x.untyped_storage()
    return [
        s.nbytes(),
        s.size(),
        s.data_ptr() == x.data_ptr(),
        x[2:].untyped_storage().nbytes(),
        x[2:].untyped_storage().data_ptr() == s.data_ptr(),
        len(x.storage()),
        x.storage().tolist(),
        x[2:].storage_offset(),
    ]


@case
def deep_copies(torch):
    x = torch.arange(4.0).requires_grad_()
    (x * 2).sum().backward()
    y = copy.deepcopy(x)
    y.grad[0] = 50
    base = torch.arange(6.0)
    pair = copy.deepcopy([base, base[2:], base])
    pair[0][2] = 99
    return [
        y,
        y.grad,
        x.grad,
        pair,
        pair[0] is pair[2],
        base,
        attempt(torch, lambda: copy.deepcopy(x * 2)),
        copy.deepcopy(torch.arange(6.0).reshape(2, 3).t()).stride(),
        copy.deepcopy(x.detach()).requires_grad,
    ]


@case
def shallow_copies(torch):
    x = torch.arange(4.0)
    y = copy.copy(x)
    y[0] = 5
    return x, y is x


@case
def copies_of_parameters(torch):
    p = torch.nn.Parameter(torch.arange(3.0))
    p.note = ["kept"]
    q = copy.deepcopy(p)
    return type(q).__name__, q, q.note, q.note is p.note, q.is_leaf


@case
def pickles(torch):
    x = torch.arange(6.0).reshape(2, 3)
    again = pickle.loads(pickle.dumps([x, x[1], x.t(), x]))
    again[0][1, 0] = 50
    leaf = pickle.loads(pickle.dumps(torch.ones(2, requires_grad=True)))
    others = [
        torch.tensor([1, 2]),
        torch.tensor(True),
        torch.ones(2, dtype=torch.bfloat16),
        torch.zeros(0, 3),
    ]
    return (
        again,
        leaf,
        pickle.loads(pickle.dumps(others)),
        pickle.loads(pickle.dumps(torch.float32)) is torch.float32,
    )


@case
def pickle_of_nonleaf(torch):
    x = torch.ones(2, requires_grad=True) * 2
    return attempt(torch, lambda: copy.deepcopy(x)), attempt(
        torch, lambda: pickle.loads(pickle.dumps(x))
    )


@case
def iteration_gives_views(torch):
    x = torch.zeros(3, 2)
    for k, row in enumerate(x):
        row.fill_(k)
    return x, [float(v) for v in x[:, 0]], attempt(torch, lambda: list(torch.tensor(1.0)))


@case
def unpacking(torch):
    a, b = torch.tensor([1, 2])
    (c,), *rest = torch.tensor([[1.0], [2.0], [3.0]])
    return a, b, c, rest


@case
def as_strided_overlapping(torch):
    x = torch.arange(5.0).requires_grad_()
    windows = x.as_strided((3, 3), (1, 1))
    (windows * windows).sum().backward()
    return windows, x.grad


@case
def unfold_gradient(torch):
    x = torch.arange(5.0).requires_grad_()
    windows = x.unfold(0, 3, 1)
    (windows * windows).sum().backward()
    return windows, x.grad


@case
def views_of_empty(torch):
    x = torch.zeros(0, 3)
    return [
        x.t(),
        x.view(3, 0),
        x.reshape(0),
        x[:, 1],
        x.expand(2, 0, 3),
        x.flatten(),
        x.sum(),
        x.unsqueeze(0).shape,
    ]


@case
def scalar_views(torch):
    x = torch.tensor(5.0)
    return [
        x.view(1),
        x.view(1, 1),
        x.reshape(()),
        x[None],
        x[...],
        x.expand(2),
        x.flatten(),
        x.unsqueeze(0),
        x.t(),
        x.squeeze(),
    ]


@case
def pending_work_and_views(torch):
    x = torch.arange(6.0) * 2
    v = x[2:4]
    x.add_(1)
    w = v + 1
    v.mul_(10)
    return x, v, w


@case
def old_values_stay(torch):
    x = torch.arange(3.0)
    before = x + 0
    copied = x.clone()
    x.mul_(5)
    return before, copied, x


@case
def swap_rows(torch):
    x = numbers(torch, 2, 3)
    x[0], x[1] = x[1].clone(), x[0].clone()
    y = numbers(torch, 2, 3)
    y[[0, 1]] = y[[1, 0]]
    return x, y


@case
def overlapping_moves(torch):
    x = torch.arange(6.0)
    return attempt(torch, lambda: x[:-1].copy_(x[1:])), x


@case
def memory_formats(torch):
    x = numbers(torch, 2, 3, 2, 2)
    y = x.to(memory_format=torch.channels_last)
    z = x.contiguous(memory_format=torch.channels_last)
    return [
        list(y.stride()),
        list(z.stride()),
        y.is_contiguous(),
        y.is_contiguous(memory_format=torch.channels_last),
        list((y + 1).stride()),
        bool((y == x).all()),
        list(torch.empty(2, 3, 2, 2, memory_format=torch.channels_last).stride()),
        list(torch.empty_like(y).stride()),
        list(y.clone().stride()),
        list(y.contiguous().stride()),
        attempt(torch, lambda: numbers(torch, 2, 3).contiguous(memory_format=torch.channels_last)),
        list(torch.zeros_like(x, memory_format=torch.channels_last).stride()),
    ]
