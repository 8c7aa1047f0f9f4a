"""Work that memory bounds: 4 million floats read and written."""

import math

from workloads import workload

MANY = 1 << 22
ROWS, COLUMNS = 4096, 1024


def _shaped(lab, seed, grad=False):
    return lab.normal(seed, ROWS, COLUMNS, grad=grad)


@workload("memory.copy", "copy_")
def copy(lab):
    source, target = lab.normal(1, MANY), lab.normal(2, MANY)
    return lab.without_grad(lambda: target.copy_(source))


@workload("memory.add_out", "torch.add(a, b, out=c)")
def add_out(lab):
    a, b, c = (lab.normal(seed, MANY) for seed in (1, 2, 3))
    return lambda: lab.torch.add(a, b, out=c)


@workload("memory.relu_chain", "relu(a * b + c)", compiled=True)
def relu_chain(lab):
    a, b, c = (lab.normal(seed, MANY) for seed in (1, 2, 3))
    return lab.compiled(lambda: lab.torch.relu(a * b + c))


def _gelu(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + inner.tanh())


@workload("memory.gelu", "GELU written by hand", compiled=True)
def gelu(lab):
    x = lab.normal(4, MANY)
    function = lab.compiled(_gelu)
    return lab.without_grad(lambda: function(x))


@workload("memory.gelu_backward", "the same, with its backward", compiled=True)
def gelu_backward(lab):
    x = lab.normal(4, MANY, grad=True)
    function = lab.compiled(_gelu)
    return _with_backward(lab, lambda: function(x), [x])


def _with_backward(lab, forward, leaves):
    seed = None

    def step():
        nonlocal seed
        for leaf in leaves:
            leaf.grad = None
        result = forward()
        if seed is None:
            seed = lab.torch.ones_like(result)
        result.backward(seed)
        return [leaf.grad for leaf in leaves]

    return step


@workload("memory.softmax", "softmax of 4096 rows of 1024", compiled=True)
def softmax(lab):
    x = _shaped(lab, 5)
    function = lab.compiled(lambda: x.softmax(-1))
    return lab.without_grad(function)


@workload("memory.layer_norm", "layer_norm of 4096 rows of 1024", compiled=True)
def layer_norm(lab):
    layer = lab.compiled(lab.torch.nn.LayerNorm(COLUMNS))
    x = _shaped(lab, 6)
    return lab.without_grad(lambda: layer(x))


@workload("memory.layer_norm_backward", "the same, with its backward", compiled=True)
def layer_norm_backward(lab):
    layer = lab.torch.nn.LayerNorm(COLUMNS)
    x = _shaped(lab, 6, grad=True)
    forward = lab.compiled(layer)
    return _with_backward(lab, lambda: forward(x), [x, layer.weight, layer.bias])


def _rms_norm(x, weight):
    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * weight


@workload("memory.rms_norm", "RMSNorm written by hand", compiled=True)
def rms_norm(lab):
    x, weight = _shaped(lab, 7), lab.normal(8, COLUMNS)
    function = lab.compiled(_rms_norm)
    return lab.without_grad(lambda: function(x, weight))


@workload("memory.rms_norm_backward", "the same, with its backward", compiled=True)
def rms_norm_backward(lab):
    x, weight = _shaped(lab, 7, grad=True), lab.normal(8, COLUMNS, grad=True)
    function = lab.compiled(_rms_norm)
    return _with_backward(lab, lambda: function(x, weight), [x, weight])


@workload("memory.sum", "sum of all")
def total(lab):
    x = _shaped(lab, 9)
    return lambda: x.sum()


@workload("memory.sum_columns", "sum over rows")
def sum_columns(lab):
    x = _shaped(lab, 9)
    return lambda: x.sum(0)


@workload("memory.sum_rows", "sum of each row")
def sum_rows(lab):
    x = _shaped(lab, 9)
    return lambda: x.sum(1)


@workload("memory.adam", "Adam's step over 60 tensors", compiled=True)
def adam(lab):
    torch = lab.torch
    sizes = [(256, 256), (256,), (1024, 256)] * 20
    parameters = [torch.nn.Parameter(lab.normal(k, *size)) for k, size in enumerate(sizes)]
    for k, parameter in enumerate(parameters):
        parameter.grad = lab.normal(100 + k, *parameter.shape)
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    update = lab.compiled(optimizer.step)

    def step():
        update()
        return parameters

    return step


@workload("memory.dropout", "dropout(0.1)")
def dropout(lab):
    x = lab.normal(10, MANY)
    return lab.without_grad(lambda: lab.torch.nn.functional.dropout(x, 0.1, True))


@workload("memory.cross_entropy", "cross_entropy over 50,000 classes, both ways", compiled=True)
def cross_entropy(lab):
    x, classes = lab.normal(11, 64, 50_000, grad=True), lab.integers(12, 50_000, 64)
    function = lab.compiled(lambda logits: lab.torch.nn.functional.cross_entropy(logits, classes))

    def step():
        x.grad = None
        function(x).backward()
        return x.grad

    return step


@workload("memory.where", "where(mask, a, 0) * 2", compiled=True)
def where(lab):
    a = lab.normal(13, MANY)
    mask = lab.normal(14, MANY) > 0
    return lab.compiled(lambda: lab.torch.where(mask, a, 0.0) * 2)


@workload("memory.transpose", "transposed copy", compiled=True)
def transpose(lab):
    x = lab.normal(15, 2048, 2048)
    return lab.compiled(lambda: x.t().contiguous())


@workload("memory.cumsum", "cumsum along rows", compiled=True)
def cumsum(lab):
    x = _shaped(lab, 16)
    return lab.compiled(lambda: x.cumsum(1))


@workload("memory.sort", "sort of 1 million")
def sort(lab):
    x = lab.normal(17, 1 << 20)
    return lambda: list(x.sort())


@workload("memory.topk", "top 10 of each of 256 rows of 4096")
def topk(lab):
    x = lab.normal(18, 256, 4096)
    return lambda: list(x.topk(10))


@workload("memory.index_select", "4096 of 65,536 rows of 256")
def index_select(lab):
    table, rows = lab.normal(19, 65_536, 256), lab.integers(20, 65_536, 4096)
    return lambda: table.index_select(0, rows)


@workload("memory.embedding", "embedding, both ways", floor=1.0)
def embedding(lab):
    table, ids = lab.normal(21, 50_000, 256, grad=True), lab.integers(22, 50_000, 8, 256)

    def step():
        table.grad = None
        lab.torch.nn.functional.embedding(ids, table).sum().backward()
        return table.grad

    return step


@workload("memory.cat", "cat of two halves")
def cat(lab):
    halves = [lab.normal(seed, ROWS // 2, COLUMNS) for seed in (23, 24)]
    return lambda: lab.torch.cat(halves, 1)
