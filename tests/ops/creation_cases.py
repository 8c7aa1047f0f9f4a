"""Functions that make tensors from sizes and numbers."""

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


def setup(torch):
    return {"x": torch.arange(6.0).reshape(2, 3), "i": torch.arange(3), "t": torch.tensor}


CASES.expressions(
    setup,
    """
    torch.zeros(2, 3)
    torch.zeros((2, 3))
    torch.zeros([2, 3])
    torch.zeros(torch.Size([2, 3]))
    torch.zeros(size=(2,))
    torch.zeros(())
    torch.zeros(0)
    torch.zeros(2, 0, 3)
    torch.zeros(2, dtype=torch.int64)
    torch.zeros(2, dtype=torch.bool)
    torch.zeros(2, dtype=torch.bfloat16)
    torch.zeros(2, dtype=int)
    torch.zeros(2, requires_grad=True)
    torch.zeros(2, dtype=torch.int64, requires_grad=True)
    torch.zeros(2, device="cpu")
    torch.zeros(2, device="cuda")
    torch.zeros(2, device="meta").device
    torch.zeros(2, layout=torch.strided)
    torch.zeros(-1)
    torch.zeros(2, -3)
    torch.zeros(2.5)
    torch.zeros("a")
    torch.zeros(None)
    torch.zeros((2.5,))
    torch.zeros(t(2), t(3))
    torch.zeros(t([2, 3]))
    torch.zeros(x.shape)
    torch.zeros(True)
    torch.ones(2, 3)
    torch.ones(2, dtype=torch.uint8)
    torch.ones(3, out=torch.empty(3))
    torch.ones(3, out=torch.empty(0, dtype=torch.int64))
    torch.empty(2, 3).shape
    torch.empty(0)
    torch.empty(2, dtype=torch.int32).dtype
    torch.empty(2, requires_grad=True).requires_grad
    torch.empty((2, 3), dtype=torch.float64).stride()
    torch.empty_strided((2, 3), (1, 2)).stride()
    torch.full((2, 2), 7)
    torch.full((2, 2), 7.5)
    torch.full((2,), True)
    torch.full((), 3)
    torch.full((2,), 7, dtype=torch.float64)
    torch.full((2,), 7.9, dtype=torch.int64)
    torch.full((2,), t(3.0))
    torch.full((2,), float("nan"))
    torch.full((2,), float("inf"), dtype=torch.float16)
    torch.full((2,), 5, requires_grad=True)
    torch.full((2,), 5.0, requires_grad=True)
    torch.full([2], 1)
    torch.full(2, 1)
    torch.full((-2,), 1)
    torch.zeros_like(x)
    torch.zeros_like(x.t())
    torch.zeros_like(x, dtype=torch.int64)
    torch.zeros_like(x, requires_grad=True)
    torch.ones_like(i)
    torch.ones_like(x[:, ::2])
    torch.ones_like(x.expand(2, 2, 3))
    torch.full_like(x, 5)
    torch.full_like(i, 5.7)
    torch.full_like(x, 5, dtype=torch.int32)
    torch.empty_like(x.t()).stride()
    torch.zeros_like([1, 2])
    torch.zeros_like(5)
    torch.rand_like(i)
    torch.arange(5)
    torch.arange(5.0)
    torch.arange(1, 5)
    torch.arange(1, 5, 2)
    torch.arange(1, 2, 0.3)
    torch.arange(0, 1, 0.1)
    torch.arange(0, 1, 0.1, dtype=torch.float64)
    torch.arange(5, 1, -1)
    torch.arange(5, 1, -1.5)
    torch.arange(0)
    torch.arange(-3)
    torch.arange(3, 1)
    torch.arange(1, 5, -1)
    torch.arange(1, 5, 0)
    torch.arange(2.5)
    torch.arange(start=1, end=4)
    torch.arange(end=3)
    torch.arange(0, 10, 3, dtype=torch.float32)
    torch.arange(3, dtype=torch.bool)
    torch.arange(3, dtype=torch.uint8)
    torch.arange(3, dtype=torch.float16)
    torch.arange(3, dtype=torch.bfloat16)
    torch.arange(t(4))
    torch.arange(t(1.5), t(4))
    torch.arange(True)
    torch.arange(3, requires_grad=True)
    torch.arange(3.0, requires_grad=True)
    torch.arange(float("inf"))
    torch.arange(float("nan"))
    torch.arange(0, 3, out=torch.empty(3))
    torch.arange(0, 3, out=torch.empty(0, dtype=torch.int32))
    torch.arange(2**40, 2**40 + 2)
    torch.arange(16777215, 16777219, dtype=torch.float32)
    torch.arange(0, 5, 1.0)
    torch.arange("a")
    torch.range(1, 3)
    torch.range(0, 1, 0.25)
    torch.linspace(0, 1, 5)
    torch.linspace(0, 1, 1)
    torch.linspace(0, 1, 0)
    torch.linspace(-1, 1, 11)
    torch.linspace(0, 10, 7)
    torch.linspace(1, 0, 3)
    torch.linspace(0, 10, 5, dtype=torch.int64)
    torch.linspace(0, 3, 8, dtype=torch.int32)
    torch.linspace(0, 1, 5, dtype=torch.float64)
    torch.linspace(0, 1, steps=3, requires_grad=True)
    torch.linspace(0, 1, -1)
    torch.linspace(t(0.0), t(1.0), 3)
    torch.linspace(0, 1, 3, out=torch.empty(3))
    torch.linspace(3, 3, 3)
    torch.linspace(0, 100, 101)[37].item()
    torch.logspace(0, 2, 3)
    torch.logspace(0, 3, 4, base=2)
    torch.logspace(0, 2, 1)
    torch.logspace(0, 2, 3, dtype=torch.float64)
    torch.eye(3)
    torch.eye(2, 3)
    torch.eye(3, 2)
    torch.eye(0)
    torch.eye(2, 0)
    torch.eye(2, dtype=torch.int64)
    torch.eye(2, dtype=torch.bool)
    torch.eye(2, requires_grad=True)
    torch.eye(-1)
    torch.eye(2, -1)
    torch.eye(2.5)
    torch.eye(2, out=torch.empty(2, 2))
    torch.diag(t([1.0, 2.0]))
    torch.diag_embed(t([1.0, 2.0]))
    torch.tril(torch.ones(3, 3))
    torch.triu(torch.ones(3, 3), 1)
    torch.meshgrid(t([1, 2]), t([3, 4]), indexing="ij")
    torch.meshgrid(t([1, 2]), t([3, 4]), indexing="xy")
    torch.cartesian_prod(t([1, 2]), t([3, 4]))
    torch.combinations(t([1, 2, 3]))
    torch.zeros(2).new_zeros(3, 2)
    torch.zeros(2).new_zeros((3, 2), dtype=torch.int64)
    torch.zeros(2).new_ones([2])
    torch.zeros(2).new_full((2,), 3.5)
    i.new_full((2,), 3.9)
    i.new_tensor([1.5, 2.5])
    i.new_empty((2,)).dtype
    torch.scalar_tensor(3)
    torch.zeros(3).fill_(2)
    torch.zeros(3).fill_(t(2))
    torch.zeros(3).fill_(t([2]))
    torch.zeros(3, dtype=torch.int64).fill_(2.9)
    torch.fill(torch.zeros(3), 5)
    torch.zeros(2).zero_()
    torch.ones(2, 2).fill_diagonal_(7)
    torch.ones(2, 3).fill_diagonal_(7)
    torch.zeros(2, 3, out=x)
    """,
)


@case
def out_keeps_identity_and_strides(torch):
    target = torch.empty(3, 2).t()
    returned = torch.ones(2, 3, out=target)
    return returned is target, target, target.stride()


@case
def fill_value_is_read_at_once(torch):
    value = torch.tensor(3.0)
    made = torch.full((2,), value.item())
    value.zero_()
    return made


@case
def constants_are_independent(torch):
    a, b = torch.zeros(2), torch.zeros(2)
    a.add_(1)
    return a, b, a.data_ptr() == b.data_ptr()


@case
def gradients_of_created_leaves(torch):
    a = torch.zeros(2, requires_grad=True)
    b = torch.arange(2.0, requires_grad=True)
    (a * b + torch.full((2,), 2.0) * a).sum().backward()
    return a.is_leaf, a.grad, b.grad


@case
def keyword_names(torch):
    return [
        attempt(torch, lambda: torch.zeros(2, wrong=1)),
        attempt(torch, lambda: torch.full((2,), fill_value=3)),
        attempt(torch, lambda: torch.full(size=(2,), fill_value=3)),
        attempt(torch, lambda: torch.linspace(start=0, end=1, steps=2)),
        attempt(torch, lambda: torch.zeros(2, names=None)),
        attempt(torch, lambda: torch.ones(2, pin_memory=False)),
    ]
