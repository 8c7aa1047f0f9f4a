"""Work so small that the library itself is what takes the time."""

from workloads import workload

SIZE = 16
CHAIN = 64


def _chain(lab, grad):
    a, b = lab.normal(1, SIZE, grad=grad), lab.normal(2, SIZE)

    def step():
        x = a
        for _ in range(CHAIN):
            x = x + b
        return x

    return step


@workload("overhead.add", "a + b, 16 elements, last of 64 read", inner=CHAIN, floor=1.2)
def add(lab):
    return lab.without_grad(_chain(lab, False))


@workload("overhead.add_grad", "the same, recorded for backward", inner=CHAIN, floor=1.2)
def add_grad(lab):
    return _chain(lab, True)


@workload("overhead.add_backward", "the same, with its backward", inner=CHAIN, floor=1.2)
def add_backward(lab):
    a, b = lab.normal(1, SIZE, grad=True), lab.normal(2, SIZE)

    def step():
        a.grad = None
        x = a
        for _ in range(CHAIN):
            x = x + b
        x.sum().backward()
        return a.grad

    return step


@workload("overhead.add_read", "a + b, 16 elements, each read", inner=CHAIN, floor=0.5)
def add_read(lab):
    a, b = lab.normal(1, SIZE), lab.normal(2, SIZE)

    def step():
        for _ in range(CHAIN):
            x = a + b
            x.data_ptr()
        return x

    return lab.without_grad(step)


@workload("overhead.item", "x.sum().item(), 16 elements", floor=0.5)
def item(lab):
    x = lab.normal(3, SIZE)

    def step():
        x.sum().item()

    return step


@workload("overhead.views", "8 views of views", inner=8, floor=1.2)
def views(lab):
    x = lab.normal(4, 4, 6, 8)

    def step():
        y = x.transpose(0, 1).unsqueeze(0).permute(1, 0, 3, 2)
        return y[1:5].squeeze(1).reshape(4, 8, 4).narrow(2, 0, 2).transpose(1, 2)

    return step


@workload("overhead.linear", "Linear(64, 64), batch 1", floor=1.2, compiled=True)
def linear(lab):
    lab.torch.manual_seed(0)
    layer = lab.compiled(lab.torch.nn.Linear(64, 64))
    x = lab.normal(5, 1, 64)
    return lab.without_grad(lambda: layer(x))
