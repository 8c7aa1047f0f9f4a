"""Files written here read by PyTorch, and the other way round, in one process."""

from __future__ import annotations

import collections
import io
import itertools
import random
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if getattr(torch, "__name__", "") != "torch" or not hasattr(torch, "_C"):
    pytest.skip("needs PyTorch itself", allow_module_level=True)

from flambeau import serialization  # noqa: E402
from flambeau.core import dtype as dtypes  # noqa: E402
from flambeau.core.device import CPU  # noqa: E402
from flambeau.core.layout import Layout  # noqa: E402
from flambeau.engine.storage import Storage  # noqa: E402
from flambeau.nn.parameter import Parameter  # noqa: E402
from flambeau.tensor import Tensor  # noqa: E402

MODES = list(itertools.product([True, False], [True, False]))


def theirs_from(data, **options):
    return torch.load(io.BytesIO(data), **options)


def bits_of(tensor):
    """Shape, dtype name and bytes of a tensor of either side."""
    if isinstance(tensor, torch.Tensor):
        dense = torch.empty(tensor.numel(), dtype=tensor.dtype)
        dense.copy_(tensor.detach().reshape(-1))
        raw = dense.view(torch.uint8).numpy().tobytes()
        return tuple(tensor.shape), str(tensor.dtype), tuple(tensor.stride()), raw
    layout = tensor._layout
    if layout.numel == 0:
        return tuple(layout.shape), str(layout.dtype), tuple(layout.strides), b""
    flat = np.frombuffer(tensor._storage.memory(), layout.dtype.numpy)[layout.offset :]
    strides = [stride * layout.dtype.itemsize for stride in layout.strides]
    array = np.lib.stride_tricks.as_strided(flat, layout.shape, strides)
    return tuple(layout.shape), str(layout.dtype), tuple(layout.strides), array.tobytes()


def draw_view(source, numel):
    """Shape, strides and offset of some view of `numel` elements."""
    while True:
        shape = tuple(source.choice([0, 1, 2, 3, 5]) for _ in range(source.randrange(4)))
        strides = tuple(source.choice([0, 1, 2, 3, 7]) for _ in shape)
        offset = source.randrange(numel)
        reach = offset + sum((n - 1) * s for n, s in zip(shape, strides)) + 1
        if 0 in shape or reach <= numel:
            return shape, strides, offset


def draw_pair(source):
    """The same list of views of the same storages, theirs and ours."""
    theirs, ours = [], []
    for _ in range(3):
        dtype = source.choice(dtypes.ALL)
        numel = source.randrange(1, 60)
        raw = bytes(source.choice([0, 1]) for _ in range(numel * dtype.itemsize))
        flat = torch.frombuffer(bytearray(raw), dtype=getattr(torch, dtype.name))
        storage = Storage(len(raw))
        storage.memory()[:] = raw
        for _ in range(source.randrange(1, 4)):
            shape, strides, offset = draw_view(source, numel)
            theirs.append(flat.as_strided(shape, strides, offset))
            layout = Layout.of(shape, dtype, CPU, strides, offset)
            ours.append(Tensor._from_storage(storage, layout))
    return theirs, ours


@pytest.mark.parametrize("zipped, weights_only", MODES)
def test_random_tensors_both_ways(zipped, weights_only):
    source = random.Random(5)
    for _ in range(60):
        theirs, ours = draw_pair(source)
        buffer = io.BytesIO()
        serialization.save(ours, buffer, _use_new_zipfile_serialization=zipped)
        read = theirs_from(buffer.getvalue(), weights_only=weights_only)
        assert list(map(bits_of, read)) == list(map(bits_of, theirs))
        pointers = [tensor.untyped_storage().data_ptr() for tensor in read]
        storages = [id(tensor._storage) for tensor in ours]
        assert len(set(pointers)) == len(set(storages))
        buffer = io.BytesIO()
        torch.save(theirs, buffer, _use_new_zipfile_serialization=zipped)
        again = serialization.load(io.BytesIO(buffer.getvalue()), weights_only=weights_only)
        assert list(map(bits_of, again)) == list(map(bits_of, theirs))
        assert len({id(tensor._storage) for tensor in again}) == len(set(storages))


@pytest.mark.parametrize("weights_only", [True, False])
def test_pytorch_reads_our_parameters_and_data(weights_only, tmp_path):
    storage = Storage(16)
    storage.memory()[:] = np.arange(4, dtype=np.float32).tobytes()
    data = Tensor._from_storage(storage, Layout.of((2, 2), dtypes.float32))
    state = collections.OrderedDict(weight=Parameter(data), plain=data)
    state._metadata = collections.OrderedDict(layer={"version": 2})
    marked = Parameter(data)
    marked.group = "slow"
    content = {"state": state, "marked": marked, "dtype": dtypes.bfloat16, "device": CPU,
               "size": data.shape, "lr": 0.5, "betas": (0.9, 0.999), "epoch": 3}  # fmt: skip
    path = tmp_path / "checkpoint.pth"
    serialization.save(content, path)
    for mmap in (False, True):
        read = torch.load(path, weights_only=weights_only, mmap=mmap)
        assert type(read["state"]["weight"]) is torch.nn.Parameter
        assert read["state"]["weight"].requires_grad and not read["state"]["plain"].requires_grad
        assert read["state"]["weight"].data_ptr() == read["state"]["plain"].data_ptr()
        assert read["state"]._metadata == state._metadata
        assert read["marked"].group == "slow"
        assert read["dtype"] is torch.bfloat16 and read["device"] == torch.device("cpu")
        assert read["size"] == torch.Size([2, 2]) and type(read["size"]) is torch.Size
        assert (read["lr"], read["betas"], read["epoch"]) == (0.5, (0.9, 0.999), 3)


def test_the_same_bytes(tmp_path):
    theirs, ours = draw_pair(random.Random(6))
    torch.save({"x": theirs}, tmp_path / "a.pth")
    (tmp_path / "b").mkdir()
    serialization.save({"x": ours}, tmp_path / "b" / "a.pth")
    first = (tmp_path / "a.pth").read_bytes()
    second = (tmp_path / "b" / "a.pth").read_bytes()
    assert len(first) == len(second)
    # The serialization id has forty digits of its own, and its checksum stands in two places.
    assert sum(a != b for a, b in zip(first, second)) <= 48


def test_optimizer_state_from_pytorch():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.grad = torch.ones(3)
    optimizer.step()
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    state = serialization.load(io.BytesIO(buffer.getvalue()))
    expected = optimizer.state_dict()
    assert state["param_groups"] == expected["param_groups"]
    for name, tensor in expected["state"][0].items():
        assert bits_of(state["state"][0][name]) == bits_of(tensor)


MODULES = {
    "Linear": (3, 2), "Conv2d": (1, 2, 3), "BatchNorm2d": (2,), "LayerNorm": (4,),
    "Embedding": (5, 2), "Dropout": (0.3,), "MaxPool2d": (2,), "ReLU": (), "Flatten": (),
    "Tanh": (), "Sigmoid": (), "CrossEntropyLoss": (), "MSELoss": (),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_whole_modules_both_ways(name):
    nn = pytest.importorskip("flambeau.nn")
    if not hasattr(nn, name):
        pytest.skip(f"flambeau.nn has no {name} yet")
    buffer = io.BytesIO()
    theirs = getattr(torch.nn, name)(*MODULES[name])
    torch.save(theirs, buffer)
    ours = serialization.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert type(ours) is getattr(nn, name) and repr(ours) == repr(theirs)
    buffer = io.BytesIO()
    serialization.save(getattr(nn, name)(*MODULES[name]), buffer)
    again = theirs_from(buffer.getvalue(), weights_only=False)
    assert type(again) is type(theirs) and repr(again) == repr(theirs)
    assert again.__dict__.keys() == theirs.__dict__.keys()
    assert again.state_dict().keys() == theirs.state_dict().keys()


def test_their_files_need_none_of_their_modules():
    """Reading maps names; it never imports torch's modules."""
    buffer = io.BytesIO()
    torch.save(torch.ones(2), buffer)
    before = {name for name in sys.modules if name.startswith("torch")}
    serialization.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert {name for name in sys.modules if name.startswith("torch")} == before
