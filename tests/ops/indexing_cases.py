"""Expressions with square brackets, and the operators that read and write at indices."""

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def setup(torch):
    return {
        "x": torch.arange(24.0).reshape(2, 3, 4),
        "v": torch.arange(5),
        "s": torch.tensor(7.0),
        "i": torch.tensor([1, 0]),
        "t": torch.tensor,
        "mask": torch.tensor([True, False, True]),
    }


READS = """
    x[0]
    x[-1]
    x[1, 2, 3]
    x[1][2]
    x[:]
    x[...]
    x[()]
    x[None]
    x[:, None]
    x[..., None]
    x[0, ..., 1]
    x[..., 0]
    x[0:1]
    x[:, 1:]
    x[:, ::2]
    x[:, -2:]
    x[:, 5:]
    x[:, 2:1]
    x[:, :100]
    x[:, -100:2]
    x[1:, 1:, 1:]
    x[0, :, 1]
    x[True]
    x[False]
    x[True, 0]
    x[0, True]
    x[None, None, 0]
    x[i]
    x[[1, 0]]
    x[[1]]
    x[[0, 1, 1, 0]]
    x[[-1, 0]]
    x[:, [0, 2]]
    x[:, [0, 2], 1]
    x[0, [0, 2]]
    x[[0, 1], [1, 2]]
    x[[0, 1], :, [1, 2]]
    x[[0, 1], [1, 2], [3, 0]]
    x[[[0], [1]], [1, 2]]
    x[..., [0, 1]]
    x[[0, 1], ..., [0, 1]]
    x[None, [0, 1]]
    x[:, None, [0, 1]]
    x[[0, 1], None]
    x[0, None, [0, 1]]
    x[1:, [0, 1], 1:]
    x[:, mask]
    x[:, mask, 0]
    x[x > 10]
    x[x > 100]
    x[x[:, :, 0] > 5]
    x[t([True, False])]
    x[[True, False]]
    x[t([True, False]), 1]
    x[t([1, 0]), mask[:2]]
    x[t(1)]
    x[t(1), t(2)]
    x[t([1, 0], dtype=torch.int32)]
    x[t([1, 0], dtype=torch.uint8)]
    x[t([1, 0], dtype=torch.int8)]
    x[np.array([1, 0])]
    x[np.int64(1)]
    x[np.array([True, False])]
    x[:, np.array([0, 2])]
    x[range(2)]
    x[(0, 1)]
    x[[0, 1],]
    x[[]]
    x[t([], dtype=torch.int64)]
    x[:, []]
    x[0][[0, 2]]
    x[t([[0, 1], [1, 0]])]
    x[:, t([[0, 1], [1, 2]])]
    x[slice(0, 1)]
    x[slice(None), slice(1, None)]
    x[t(0):t(1)]
    x[np.int64(0):np.int64(1)]
    s[None]
    s[...]
    s[()]
    s[True]
    s[False]
    s[t(True)]
    s[None, None]
    v[v > 2]
    v[-1]
    v[1:4:2]
    v[t([4, 0])]
    v[t(2)]
    v[[True, False, True, False, True]]
    v[v]
    x.t if False else x[0].t()[1]
    x.permute(2, 0, 1)[1]
    x.permute(2, 0, 1)[[0, 1]]
    x[:, :, ::2][:, [0, 1]]
    x[2]
    x[-3]
    x[0, 3]
    x[0, 0, 4]
    x[0, 0, 0, 0]
    x[..., 0, 0, 0, 0]
    x[..., ...]
    x[::-1]
    x[::0]
    x[1.0]
    x["a"]
    x[{}]
    x[[5]]
    x[[0, 5]]
    x[:, [3]]
    x[[-3]]
    x[t([2])]
    x[t([0.5])]
    x[t(0.5)]
    x[[0, 1], [0, 1, 2]]
    x[t([True])]
    x[t([True, False, True])]
    x[:, t([True, False])]
    x[[True, False, True]]
    x[t([[True, False]])]
    x["a":]
    x[1.5:]
    s[0]
    s[0:1]
    v[5]
    v[0, 0]
    v[t(9)]
    v[None, 9]
    x.index_select(1, t([2, 0]))
    x.index_select(-1, t([0, 0]))
    x.index_select(0, t([5]))
    x.index_select(0, t([-1]))
    x.index_select(3, t([0]))
    x.index_select(0, t([[0]]))
    x.index_select(0, t([0.5]))
    x.index_select(0, t(1))
    x.gather(0, t([[[1, 0, 1, 0]]]))
    x.gather(0, t([[[2]]]))
    x.gather(0, t([0]))
    x.take(t([0, 23, -1]))
    x.take(t([24]))
    x.take(t([[0, 1], [2, 3]]))
    torch.take_along_dim(x, t([[[1, 0, 1, 0]]]), 0)
    x.nonzero()
    v.nonzero()
    v.nonzero(as_tuple=True)
    torch.nonzero(v > 2)
    s.nonzero()
    torch.zeros(0, 2).nonzero()
    torch.where(v > 2)
    torch.where(v > 2, v, -v)
    torch.where(v > 2, 1, 0)
    torch.where(v > 2, v, 0.5)
    torch.where(v, v, v)
    torch.argwhere(v > 2)
    x.masked_select(x > 20)
    torch.masked_select(v, t(True))
    v.masked_select(t([True]))
    x.masked_fill(x > 3, -1)
    v.masked_fill(v > 3, 2.5)
    v.masked_fill(v > 3, t(9))
    v.masked_fill(v, 1)
    v.masked_scatter(v > 2, t([70, 80]))
    v.masked_scatter(v > 1, t([70, 80]))
    v.scatter(0, t([0, 1]), t([50, 60]))
    v.scatter(0, t([0, 1]), 9)
    v.scatter(0, t([9]), 1)
    v.scatter(0, t([0]), t([1.5]))
    v.scatter_add(0, t([0, 0, 1]), t([1, 2, 3]))
    v.scatter(0, t([0, 1]), t([3, 4]), reduce="multiply")
    v.index_add(0, t([0, 0]), t([10, 20]))
    v.index_copy(0, t([0, 1]), t([10, 20]))
    v.index_fill(0, t([0, 1]), 5)
    v.index_put((t([0, 1]),), t([7, 8]))
    v.index_put((t([0, 0]),), t([7, 8]), accumulate=True)
    torch.diagonal(x[0])
    torch.tril_indices(3, 3)
    torch.triu_indices(3, 3)
    x.unfold(2, 2, 1).shape
    torch.bincount(v)
    torch.searchsorted(v, t([2, 9]))
    """

CASES.expressions(setup, READS)

WRITES = """
    x[0] = 5.0
    x[0, 1] = -1
    x[0, 1, 2] = t(3)
    x[...] = 1
    x[:] = 2.5
    x[()] = 3
    x[:, 1] = t([1.0, 2, 3, 4])
    x[:, 1:] = 0
    x[0] = t([[1.0], [2], [3]])
    x[0] = x[1]
    x[0] = [[1, 2, 3, 4]] * 3
    x[0, 0] = (5, 6, 7, 8)
    x[0, 0] = np.arange(4)
    x[0, 0] = np.float64(2.5)
    x[0:1] = torch.ones(1, 3, 4)
    x[0] = torch.ones(1, 3, 4)
    x[0] = torch.ones(1, 1, 1, 3, 4)
    x[None] = 5
    x[..., 0] = 9
    x[[0, 1], [1, 2]] = 50
    x[[0, 1], [1, 2]] = t([[1.0], [2.0]])
    x[[0, 0]] = t([1.0, 2.0])[:, None, None]
    x[:, [0, 2]] = 7
    x[:, [0, 2]] = x[:, [2, 0]]
    x[[0], :, [1]] = 8
    x[x > 5] = 0
    x[x > 5] = t(2)
    x[x > 20] = t([1.0, 2.0, 3.0])
    x[:, mask] = 1
    x[:, mask, 0] = t([1.0, 2.0])
    x[t([True, False])] = 3
    x[True] = 4
    x[False] = 4
    x[t(1)] = 6
    x[i] = t([1.0, 2.0])[:, None, None]
    x[np.array([0])] = 3
    x[..., [0, 1]] = t([1.0, 2.0])
    x[0, ..., [0, 1]] = 5
    x.permute(2, 0, 1)[0] = -5
    x.permute(2, 0, 1)[[0, 1]] = -5
    x[0].t()[1] = 5
    x[:, ::2][..., 1] = 6
    s[...] = 3
    s[()] = 4
    s[None] = 5
    s[True] = 6
    s[t(True)] = 7
    v[0] = 1.9
    v[0] = True
    v[v > 2] = 9
    v[[0, 1]] = t([5, 6])
    v[1:3] = t([1.5, 2.5])
    v[[0, 1]] = t([1.5, 2.5])
    v[[0, 1]] = 2.5
    v[t([0, 0, 0])] += 1
    v[v > 2] *= 2
    x[:, 0] += 100
    x[[0, 1], [0, 1]] -= 100
    x[0] = torch.ones(2)
    x[0] = torch.ones(5, 3, 4)
    x[0] = [1, 2]
    x[0] = "a"
    x[0] = None
    x[2] = 1
    x[0, 3] = 1
    x[[0, 5]] = 1
    x[[0, 1], [0, 1]] = t([1.0, 2.0, 3.0])
    x[x > 5] = t([1.0, 2.0])
    x[1.0] = 1
    x["a"] = 1
    x[t([True, False, True])] = 1
    x[0, 0, 0] = t([1.0, 2.0])
    x[0, 0, 0] = t([[5.0]])
    s[0] = 1
    v[9] = 1
    v[0] = 2**70
    """


def written(line):
    def run(torch):
        names = {"torch": torch, "np": __import__("numpy"), **setup(torch)}
        target = names[line[0]]
        before = target._version
        exec(line, names)
        return target, target._version - before

    return run


for line in filter(None, map(str.strip, WRITES.splitlines())):
    CASES[line] = written(line)


def gradient_cases():
    keys = {
        "integer": lambda t: 1,
        "integers": lambda t: (1, 2),
        "slice": lambda t: (slice(None), slice(0, 2)),
        "step": lambda t: (Ellipsis, slice(None, None, 2)),
        "none": lambda t: (None, 0),
        "list": lambda t: [1, 0, 1],
        "pair": lambda t: ([0, 1, 0], [1, 2, 1]),
        "apart": lambda t: ([0, 1], slice(None), [1, 2]),
        "grid": lambda t: (t.tensor([[0], [1]]), t.tensor([0, 0, 2])),
        "mask": lambda t: t.arange(24).reshape(2, 3, 4) % 5 == 0,
        "partial_mask": lambda t: (slice(None), t.tensor([True, False, True])),
        "mixed": lambda t: (1, [0, 0], slice(1, 3)),
        "true": lambda t: True,
        "tensor": lambda t: t.tensor(1),
        "empty": lambda t: [],
        "negative": lambda t: ([-1, -2], -1),
    }
    yield from keys.items()


def reading(key):
    def run(torch):
        x = torch.arange(24.0).reshape(2, 3, 4).requires_grad_()
        y = x[key(torch)]
        y.backward(torch.arange(float(y.numel())).reshape(y.shape) + 1)
        return y, x.grad

    return run


def writing(key):
    def run(torch):
        x = torch.arange(24.0).reshape(2, 3, 4).requires_grad_()
        y = x * 1
        value = torch.full((), 5.0, requires_grad=True)
        y[key(torch)] = value
        y.backward(torch.arange(24.0).reshape(2, 3, 4))
        return y, x.grad, value.grad

    return run


for name, key in gradient_cases():
    CASES[f"gradient of reading: {name}"] = reading(key)
    CASES[f"gradient of writing: {name}"] = writing(key)


@case
def deleting(torch):
    x = torch.arange(3)

    def delete():
        del x[0]

    return attempt(torch, delete)


@case
def gradients_of_gradients(torch):
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    y = (x[[0, 1, 0], [1, 2, 1]] ** 3).sum() + (x[x > 2] ** 2).sum()
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    (h,) = torch.autograd.grad((g * g).sum(), x)
    return g, h
