"""Programs about tensors as Python objects, and about making them from data."""

import operator

import numpy as np

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def setup(torch):
    class Indexable:
        def __index__(self):
            return 3

    class Floatable:
        def __float__(self):
            return 2.5

    return {
        "x": torch.tensor([1.0, 2.0, 3.0]),
        "m": torch.arange(6).reshape(2, 3),
        "s": torch.tensor(2.5),
        "i": torch.tensor(3),
        "b": torch.tensor(True),
        "one": torch.tensor([[4.0]]),
        "g": torch.tensor([1.0, 2.0], requires_grad=True),
        "Indexable": Indexable,
        "Floatable": Floatable,
        "operator": operator,
    }


CASES.expressions(
    setup,
    """
    len(x)
    len(m)
    len(s)
    bool(b)
    bool(s)
    bool(one)
    bool(x)
    bool(torch.tensor([]))
    bool(torch.zeros(1))
    int(s)
    int(i)
    int(one)
    int(x)
    int(torch.tensor(-2.7))
    float(i)
    float(s)
    float(x)
    float(torch.tensor([]))
    complex(s)
    operator.index(i)
    operator.index(s)
    operator.index(b)
    operator.index(x)
    operator.index(torch.tensor([5]))
    [10, 20, 30, 40][i]
    list(range(i))
    "abc"[torch.tensor(1)]
    s.item()
    type(i.item()).__name__
    type(b.item()).__name__
    x.item()
    torch.tensor([]).item()
    one.item()
    x.tolist()
    m.tolist()
    s.tolist()
    torch.zeros(0, 2).tolist()
    torch.zeros(2, 0).tolist()
    torch.tensor([True, False]).tolist()
    torch.tensor([1.5], dtype=torch.bfloat16).tolist()
    torch.tensor([1.5], dtype=torch.float16).item()
    2.0 in x
    5 in x
    torch.tensor(2.0) in x
    "a" in x
    None in x
    x == None
    x != None
    x == "a"
    x != "a"
    x == [1.0, 2.0, 3.0]
    (x == x).all().item()
    x is x
    hash(x) == hash(x)
    hash(x) == hash(x.clone())
    {x: 1}[x]
    len({x, x, x.clone()})
    x in [x.clone()]
    s in [torch.tensor(2.5)]
    format(s)
    format(s, ".3f")
    format(i, "04d")
    f"{s:.1f} {i}"
    format(x)
    format(x, ".3f")
    "%.2f" % s
    "%d" % i
    str(s)
    repr(i)
    round(s)
    round(torch.tensor(2.567), 2)
    abs(-x)
    -x
    +x
    ~b
    ~m
    ~x
    divmod(x, 2)
    x.__len__()
    list(reversed(x))
    reversed(m)
    sorted([torch.tensor(3), torch.tensor(1), torch.tensor(2)])
    max(torch.tensor([1, 5, 2]))
    sum(x)
    sum([x, x])
    list(map(float, x))
    tuple(torch.tensor([1, 2]))
    [list(r) for r in m]
    iter(s)
    list(s)
    x + 1
    1 + x
    x - 1
    1 - x
    x * 2
    2 * x
    x / 2
    2 / x
    x // 2
    7 // x
    x % 2
    7 % x
    x ** 2
    2 ** x
    m // 2
    m / 2
    m % 2
    m ** 2
    2 ** m
    m & 1
    1 & m
    m | 1
    m ^ 1
    m << 1
    m >> 1
    1 << m
    x & 1
    x @ x
    m @ m
    m @ torch.tensor([1, 2, 3])
    x @ 2
    x + "a"
    "a" + x
    x + None
    x + [1, 2, 3]
    [1, 2, 3] + x
    x * (1, 2, 3)
    x < "a"
    x < None
    x > 1
    1 > x
    x >= x
    x + True
    b + b
    b + 1
    b - b
    -b
    b * 2.5
    i + 2.5
    i + s
    i / 2
    i // 2
    torch.tensor([1, 2]) + torch.tensor(1.5)
    torch.tensor([1, 2]) + torch.tensor(1.5, dtype=torch.float64)
    torch.tensor([1.0]) + torch.tensor(1.5, dtype=torch.float64)
    torch.tensor([1], dtype=torch.int8) + 300
    torch.tensor([1], dtype=torch.uint8) - 2
    x + np.float64(1)
    np.float64(1) + x
    np.array([1.0, 2.0, 3.0]) + x
    x + np.array([1.0, 2.0, 3.0])
    x + np.float32(1)
    np.float32(2) * x
    x * np.int64(2)
    i + 2**70
    x + 2**70
    x.new_zeros(2)
    x.new_tensor([1, 2])
    m.new_ones((2,))
    m.new_full((2,), 7)
    x.new_empty(0)
    x.new([5, 6])
    torch.Tensor(2, 3).shape
    torch.Tensor([2, 3])
    torch.Tensor((2, 3))
    torch.Tensor(torch.Size([2, 3])).shape
    torch.Tensor()
    torch.Tensor([[1, 2], [3, 4]])
    torch.Tensor(5).shape
    torch.Tensor(x)
    torch.Tensor(m)
    torch.Tensor("a")
    torch.Tensor(2.5)
    torch.Tensor(np.arange(3.0, dtype=np.float32))
    torch.FloatTensor([1, 2])
    torch.LongTensor([1, 2])
    torch.LongTensor(2, 3).shape
    torch.LongTensor([1.5, 2.5])
    torch.ByteTensor([1, 0])
    torch.BoolTensor([1, 0])
    torch.DoubleTensor([1, 2])
    torch.IntTensor([1, 2])
    isinstance(x, torch.FloatTensor)
    isinstance(x, torch.LongTensor)
    isinstance(m, torch.LongTensor)
    x.type()
    m.type()
    x.type(torch.int32)
    x.type("torch.DoubleTensor")
    x.type(torch.LongTensor)
    x.type("wrong")
    x.type_as(m)
    x.to("cuda")
    x.cuda()
    x.to(torch.int64)
    x.to("cpu").shape
    x.to(m)
    x.is_floating_point()
    m.is_floating_point()
    x.is_complex()
    x.device
    x.layout
    x.is_cuda
    x.is_sparse
    x.get_device()
    x.names
    x.data_ptr() == x.data_ptr()
    x.element_size()
    x.is_contiguous()
    x.dtype
    x.nonexistent
    torch.is_tensor(x)
    torch.is_tensor([1])
    torch.numel(m)
    torch.equal(x, x.clone())
    torch.equal(x, m)
    torch.allclose(x, x + 1e-9)
    torch.result_type(m, 1.5)
    torch.can_cast(torch.float32, torch.int32)
    torch.promote_types(torch.int8, torch.uint8)
    g.numpy()
    g.tolist()
    g.sum().item()
    float(g[0])
    int(g[1])
    bool(g[0])
    np.asarray(g)
    g.detach().numpy()
    torch.tensor(g)
    torch.tensor(1)
    torch.tensor(1.0)
    torch.tensor(True)
    torch.tensor([])
    torch.tensor(())
    torch.tensor([[]])
    torch.tensor([[], []])
    torch.tensor([[[]]]).shape
    torch.tensor([1, 2.0])
    torch.tensor([True, 2])
    torch.tensor([True, 2.5])
    torch.tensor((1, 2))
    torch.tensor(range(3))
    torch.tensor([range(2), range(2)])
    torch.tensor([[1, 2], [3, 4]], dtype=torch.float64)
    torch.tensor([1.7, -1.7], dtype=torch.int32)
    torch.tensor([300], dtype=torch.uint8)
    torch.tensor([-1], dtype=torch.uint8)
    torch.tensor(300, dtype=torch.int8)
    torch.tensor([0, 1, 2], dtype=torch.bool)
    torch.tensor(1.5, dtype=torch.float16)
    torch.tensor(2**40)
    torch.tensor(2**63)
    torch.tensor(2**63 - 1)
    torch.tensor(-2**63)
    torch.tensor(2**40, dtype=torch.int32)
    torch.tensor(float("nan"))
    torch.tensor(float("inf"), dtype=torch.int64).dtype
    torch.tensor(float("inf"))
    torch.tensor([1, 2], dtype=float)
    torch.tensor([1, 2], dtype=int)
    torch.tensor([1, 2], dtype=bool)
    torch.tensor([1, 2], dtype="float32")
    torch.tensor([1, 2], dtype=np.float32)
    torch.tensor([[1, 2], [3]])
    torch.tensor([[1], [2, 3]])
    torch.tensor([1, [2]])
    torch.tensor([[1], 2])
    torch.tensor([[1, 2], 3])
    torch.tensor([[[1, 2]], [[3]]])
    torch.tensor("a")
    torch.tensor(["a"])
    torch.tensor([1, "a"])
    torch.tensor(None)
    torch.tensor([None])
    torch.tensor([1, None])
    torch.tensor({1: 2})
    torch.tensor({1, 2})
    torch.tensor(object())
    torch.tensor([object()])
    torch.tensor(Indexable())
    torch.tensor(Floatable())
    torch.tensor([Indexable()])
    torch.tensor(b"ab")
    torch.tensor(1, 2)
    torch.tensor([1], wrong=1)
    torch.tensor([1], device="cuda")
    torch.tensor([1], device="wrong")
    torch.tensor([1], device="meta").device
    torch.tensor(np.float32(1.5))
    torch.tensor(np.int8(5))
    torch.tensor(np.bool_(True))
    torch.tensor([np.float64(1.5), np.float64(2)])
    torch.tensor([np.float32(1.5), 2])
    torch.tensor([np.int32(1), np.int32(2)])
    torch.tensor(np.arange(3))
    torch.tensor(np.arange(6).reshape(2, 3).T)
    torch.tensor(np.arange(3)[::-1])
    torch.tensor([np.arange(2), np.arange(2)])
    torch.tensor([np.arange(2), np.arange(3)])
    torch.tensor(np.array(["a"]))
    torch.tensor(np.array([None]))
    torch.tensor(np.array([1.0, 2.0], dtype=">f8"))
    torch.tensor(np.zeros((0, 3)))
    torch.tensor([torch.tensor(1), torch.tensor(2)])
    torch.tensor([torch.tensor(1.5), 2])
    torch.tensor([torch.tensor([1, 2])])
    torch.tensor([torch.tensor([1]), torch.tensor([2])])
    torch.tensor([[torch.tensor(1), 2], [3, 4]])
    torch.tensor([x, x])
    torch.tensor(x)
    torch.tensor(x, dtype=torch.int64)
    torch.tensor(m.t())
    torch.tensor([1.0], requires_grad=True)
    torch.as_tensor([1, 2])
    torch.as_tensor(x) is x
    torch.as_tensor(x, dtype=torch.float64)
    torch.as_tensor(np.arange(3))
    torch.as_tensor(5)
    torch.as_tensor(np.float64(1.5))
    torch.asarray([1, 2])
    torch.asarray(x) is x
    torch.asarray(x, copy=True) is x
    torch.asarray(x, dtype=torch.float64, copy=False)
    torch.scalar_tensor(5)
    torch.from_numpy([1, 2])
    torch.from_numpy(x)
    torch.frombuffer(bytearray(b"abcd"), dtype=torch.uint8)
    torch.frombuffer(bytearray(8), dtype=torch.float32)
    torch.frombuffer(bytearray(b"abcd"), dtype=torch.uint8, count=2, offset=1)
    torch.frombuffer(bytearray(5), dtype=torch.float32)
    torch.frombuffer(bytearray(0), dtype=torch.float32)
    torch.frombuffer(bytearray(4), dtype=torch.uint8, offset=9)
    """,
)


@case
def attributes_can_be_added(torch):
    x = torch.ones(2)
    x.note = "kept"
    return x.note, x.__dict__, hasattr(x.clone(), "note")


@case
def default_type(torch):
    try:
        torch.set_default_dtype(torch.float64)
        found = [torch.tensor(1.0).dtype, torch.zeros(1).dtype, torch.arange(1.0).dtype]
        found += [torch.Tensor(1).dtype, (torch.tensor(1) / 2).dtype, torch.rand(1).dtype]
        found += [torch.get_default_dtype(), torch.tensor([1j]).dtype]
        found += [attempt(torch, lambda: torch.set_default_dtype(torch.int64))]
    finally:
        torch.set_default_dtype(torch.float32)
    return found


@case
def subclass(torch):
    class Mine(torch.Tensor):
        pass

    x = torch.ones(2).as_subclass(Mine)
    return type(x).__name__, isinstance(x, torch.Tensor)


@case
def truth_of_comparison_chain(torch):
    s = torch.tensor(2)
    return bool(1 < s < 3), attempt(torch, lambda: 1 < torch.tensor([1, 2]) < 3)


@case
def augmented_on_integers(torch):
    x = torch.arange(4)

    def divide():
        y = torch.arange(4)
        y /= 2
        return y

    def invert():
        y = torch.arange(4)
        y //= 2
        y <<= 1
        y |= 1
        y &= 7
        y ^= 2
        y %= 5
        return y

    return x, attempt(torch, divide), attempt(torch, invert)


@case
def matrix_product_in_place(torch):
    x = torch.eye(2)

    def run():
        y = x
        y @= torch.ones(2, 2)
        return y

    return attempt(torch, run)


@case
def numpy_functions_on_tensors(torch):
    x = torch.tensor([1.0, 4.0])
    return (
        np.sqrt(x),
        np.sum(x.numpy()),
        np.array(x),
        np.stack([x, x]),
        np.asarray(x, dtype=np.float64),
    )
