"""Programs about memory shared with numpy and through DLPack; see `tests/semantics.py`."""

import numpy as np

from tests.semantics import Cases, attempt

CASES = Cases()
case = CASES.add


@case
def array_sees_tensor(torch):
    x = torch.arange(4.0)
    a = x.numpy()
    x.add_(1)
    first = a.tolist()
    x[0] = 50
    y = x * 2
    x.mul_(0)
    return first, a, y


@case
def tensor_sees_array(torch):
    x = torch.arange(4.0)
    a = x.numpy()
    a[1] = 70
    y = x + 1
    a[1] = 80
    z = x + 1
    return x, y, z


@case
def pending_reads_come_before_writes_from_outside(torch):
    x = torch.arange(3.0)
    a = x.numpy()
    y = x * 1
    a[:] = 9
    z = x * 1
    del a
    w = x * 1
    x.add_(1)
    return y, z, w, x


@case
def array_of_pending_result(torch):
    x = torch.arange(3.0) * 2
    y = x + 1
    a = y.numpy()
    a[0] = 100
    return x, y, (y + x).numpy()


@case
def array_of_view(torch):
    x = torch.arange(6.0).reshape(2, 3)
    a = x.t().numpy()
    a[0, 1] = 30
    b = x[:, 1].numpy()
    b[0] = 40
    return x, list(a.strides), list(b.strides), a.flags.c_contiguous


@case
def array_outlives_tensor(torch):
    x = torch.arange(3.0)
    a = x.numpy()
    del x
    return a


@case
def from_numpy_shares(torch):
    a = np.arange(4.0)
    x = torch.from_numpy(a)
    a[0] = 10
    x[1] = 20
    y = x + 1
    a[2] = 30
    return a, x, y


@case
def from_numpy_strided(torch):
    a = np.arange(12.0).reshape(3, 4)
    x = torch.from_numpy(a[:, ::2])
    y = torch.from_numpy(a.T)
    x[0, 0] = 100
    return x, list(x.stride()), list(y.stride()), y, a


@case
def from_numpy_of_every_type(torch):
    kinds = [
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
        "object",
        "U1",
        "S1",
        "datetime64[s]",
        "longdouble",
    ]
    return {
        k: attempt(torch, lambda k=k: str(torch.from_numpy(np.zeros(2, dtype=k)).dtype))
        for k in kinds
    }


@case
def from_numpy_errors(torch):
    a = np.arange(4.0)
    packed = np.zeros(3, dtype=[("a", "i1"), ("b", "f4")])["b"]
    return [
        attempt(torch, lambda: torch.from_numpy(a[::-1])),
        attempt(torch, lambda: torch.from_numpy(packed)),
        attempt(torch, lambda: torch.from_numpy(a.astype(">f8"))),
        attempt(torch, lambda: torch.from_numpy([1.0])),
        attempt(torch, lambda: torch.from_numpy(np.float32(1))),
        attempt(torch, lambda: torch.from_numpy(None)),
    ]


@case
def from_numpy_read_only(torch):
    a = np.arange(3.0)
    a.flags.writeable = False
    return torch.from_numpy(a)


@case
def from_numpy_broadcast(torch):
    a = np.broadcast_to(np.arange(3.0), (2, 3)).copy()
    b = np.lib.stride_tricks.as_strided(np.arange(3.0), (2, 3), (0, 8))
    return torch.from_numpy(a), torch.from_numpy(b).stride()


@case
def from_numpy_scalar_and_empty(torch):
    return (
        torch.from_numpy(np.array(5.0)),
        torch.from_numpy(np.zeros((0, 3))),
        torch.zeros(0, 2).numpy(),
        torch.tensor(3.0).numpy(),
    )


@case
def numpy_errors(torch):
    g = torch.ones(2, requires_grad=True)
    return [
        attempt(torch, g.numpy),
        attempt(torch, (g * 2).numpy),
        attempt(torch, lambda: g.detach().numpy()),
        attempt(torch, lambda: g.numpy(force=True)),
        attempt(torch, lambda: torch.ones(2, dtype=torch.bfloat16).numpy()),
        attempt(torch, lambda: np.array(g)),
        attempt(torch, lambda: torch.ones(2, device="meta").numpy()),
    ]


@case
def numpy_of_leaf_without_grad_mode(torch):
    g = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        return attempt(torch, g.numpy)


@case
def tensor_copies_as_tensor_shares(torch):
    a = np.arange(3.0)
    copied, shared, converted = (
        torch.tensor(a),
        torch.as_tensor(a),
        torch.as_tensor(a, dtype=torch.float32),
    )
    a[0] = 9
    return copied, shared, converted


@case
def array_protocol(torch):
    x = torch.arange(3.0)
    shared, copied = np.asarray(x), np.array(x)
    x[0] = 7
    return shared, copied, np.asarray(x, dtype=np.int64), np.sqrt(x)


@case
def results_of_numpy_stay_arrays(torch):
    x = torch.arange(3.0)
    return (
        type(x.numpy() + 1).__name__,
        type(np.arange(3.0) + x).__name__,
        type(x + np.arange(3.0)).__name__,
    )


@case
def numbers_of_numpy(torch):
    x = torch.arange(3.0)
    return (
        x * np.float64(2),
        np.float32(2) * x,
        x[np.int64(1)],
        x[np.array([0, 2])],
        torch.zeros(np.int64(2)),
        x.sum(np.int64(0)),
        x.reshape(np.int64(3), 1),
    )


@case
def dlpack_to_numpy(torch):
    x = torch.arange(6.0).reshape(2, 3)
    a = np.from_dlpack(x.t())
    x[0, 1] = 44
    return a, list(a.strides), x.__dlpack_device__()[0] == 1


@case
def dlpack_from_numpy(torch):
    a = np.arange(4.0)
    x = torch.from_dlpack(a)
    x[0] = 5
    a[1] = 6
    return x, a


@case
def dlpack_between_tensors(torch):
    x = torch.arange(4.0)
    y = torch.from_dlpack(x)
    y[0] = 5
    return x, y is x, y.data_ptr() == x.data_ptr()


@case
def dlpack_capsule(torch):
    x = torch.arange(4)
    capsule = torch.utils.dlpack.to_dlpack(x)
    y = torch.utils.dlpack.from_dlpack(capsule)
    y[0] = 9
    return x, type(capsule).__name__


@case
def dlpack_errors(torch):
    return [
        attempt(torch, lambda: torch.ones(2, requires_grad=True).__dlpack__()),
        attempt(torch, lambda: np.from_dlpack(torch.ones(2, requires_grad=True))),
    ]


@case
def address_shares_too(torch):
    import ctypes

    x = torch.arange(3.0)
    pointer = ctypes.cast(x.data_ptr(), ctypes.POINTER(ctypes.c_float))
    x.add_(1)
    x.tolist()
    return pointer[0], pointer[2]


@case
def array_written_between_in_place_operations(torch):
    a = np.ones(3, np.float32)
    x = torch.from_numpy(a)
    x.mul_(2)
    a += 1
    x.mul_(2)
    a += 1
    return x, a


@case
def gradient_shared_with_numpy(torch):
    x = torch.ones(3, requires_grad=True)
    (x * 2).sum().backward()
    a = x.grad.numpy()
    (x * 2).sum().backward()
    return a


@case
def optimiser_writes_shared_parameter(torch):
    a = np.ones(2, np.float32)
    p = torch.from_numpy(a).requires_grad_()
    optimizer = torch.optim.SGD([p], lr=0.5)
    (p * p).sum().backward()
    optimizer.step()
    return a, p


@case
def many_arrays_of_one_storage(torch):
    x = torch.zeros(4)
    arrays = [x[k:].numpy() for k in range(4)]
    arrays[3][0] = 1
    del arrays[0]
    x[1] = 2
    arrays[1][0] = 3
    return arrays, x
