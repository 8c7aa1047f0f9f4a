"""Work that arithmetic bounds: products, convolutions, attention."""

from workloads import workload

FLOOR = 0.95


def _square(size):
    def prepare(lab):
        a, b = lab.normal(1, size, size), lab.normal(2, size, size)
        return lambda: a @ b

    return prepare


for _size in (256, 512, 1024, 2048):
    workload(f"compute.matmul_{_size}", f"matrix product, {_size}³", floor=FLOOR)(_square(_size))


@workload("compute.matmul_bf16", "matrix product, 1024³, bfloat16", floor=FLOOR)
def matmul_bf16(lab):
    a, b = (lab.normal(seed, 1024, 1024).bfloat16() for seed in (1, 2))
    return lambda: a @ b


@workload("compute.bmm", "64 products, 128³", floor=FLOOR)
def bmm(lab):
    a, b = lab.normal(3, 64, 128, 128), lab.normal(4, 64, 128, 128)
    return lambda: a @ b


@workload("compute.linear_gelu", "gelu(linear), 512 × 1024 × 4096", floor=FLOOR, compiled=True)
def linear_gelu(lab):
    functional = lab.torch.nn.functional
    x, weight, bias = lab.normal(5, 512, 1024), lab.normal(6, 4096, 1024), lab.normal(7, 4096)
    function = lab.compiled(lambda: functional.gelu(functional.linear(x, weight, bias)))
    return lab.without_grad(function)


def _convolution(channels, side, backward):
    def prepare(lab):
        functional = lab.torch.nn.functional
        x = lab.normal(8, 8, channels, side, side, grad=backward)
        weight = lab.normal(9, channels, channels, 3, 3, grad=backward)
        if not backward:
            return lambda: functional.conv2d(x, weight, padding=1)

        def step():
            x.grad = weight.grad = None
            functional.conv2d(x, weight, padding=1).sum().backward()
            return [x.grad, weight.grad]

        return step

    return prepare


for _channels, _side in ((64, 56), (128, 28), (256, 14), (512, 7)):
    for _backward, _title in ((False, ""), (True, ", both ways")):
        _name = f"compute.conv_{_channels}" + "_backward" * _backward
        _text = f"3 × 3 convolution, {_channels} channels, {_side} × {_side}{_title}"
        workload(_name, _text, floor=FLOOR)(_convolution(_channels, _side, _backward))


def _attention(backward):
    def prepare(lab):
        attend = lab.torch.nn.functional.scaled_dot_product_attention
        q, k, v = (lab.normal(seed, 4, 8, 512, 64, grad=backward) for seed in (10, 11, 12))
        if not backward:
            return lambda: attend(q, k, v, is_causal=True)

        def step():
            q.grad = k.grad = v.grad = None
            attend(q, k, v, is_causal=True).sum().backward()
            return [q.grad, k.grad, v.grad]

        return step

    return prepare


workload("compute.attention", "causal attention, 4 × 8 × 512 × 64", floor=FLOOR)(_attention(False))
workload("compute.attention_backward", "the same, both ways", floor=FLOOR)(_attention(True))
