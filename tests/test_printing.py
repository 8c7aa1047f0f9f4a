"""The text of a tensor against recorded texts of PyTorch (tools/record_printing.py)."""

from __future__ import annotations

import base64
import json
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from flambeau.core import dtype as dtypes
from flambeau.core.device import device
from flambeau.core.layout import Layout
from flambeau.engine.storage import Storage
from flambeau.printing import get_printoptions, printoptions, set_printoptions, tensor_repr
from flambeau.tensor import Tensor

CASES = json.loads((Path(__file__).parent / "references" / "printing.json").read_text())


class Node:
    """A stand-in for a node of the graph, known by its class's name."""


def make(array, dtype=None, device_name="cpu", requires_grad=False, grad_fn=None, kind=Tensor):
    """A tensor of that class around a copy of the array."""
    array = np.array(array, order="C")
    place = device(device_name)
    storage = Storage(array.nbytes)
    if array.nbytes and device_name != "meta":
        storage.memory()[:] = array.reshape(-1).view(np.uint8).data
    layout = Layout.of(array.shape, dtype or dtypes.FROM_NUMPY[array.dtype], place)
    tensor = Tensor._make_subclass(kind, Tensor._from_storage(storage, layout))
    tensor._requires_grad = requires_grad
    tensor._grad_fn = grad_fn
    return tensor


class Parameter(Tensor):
    pass


@pytest.fixture(autouse=True)
def _default_options():
    set_printoptions(profile="default")
    yield
    set_printoptions(profile="default")


def tensor_of(case):
    dtype = dtypes.BY_NAME[case["dtype"]]
    if case["bits"]:
        data = zlib.decompress(base64.b64decode(case["bits"]))
        array = np.frombuffer(data, dtype.numpy).reshape(case["shape"])
    else:
        array = np.zeros(case["shape"], dtype.numpy)
    grad_fn = None
    if case.get("grad_fn"):
        grad_fn = type(case["grad_fn"], (Node,), {})()
    arguments = (case.get("device", "cpu"), case.get("requires_grad", False), grad_fn)
    return make(array, dtype, *arguments)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_prints_as_pytorch(number):
    case = CASES[number]
    set_printoptions(**case["options"])
    default_dtype = dtypes.BY_NAME[case["default_dtype"]]
    assert tensor_repr(tensor_of(case), default_dtype=default_dtype) == case["text"]


def test_suffixes_move_to_a_new_line_when_the_last_one_is_full():
    text = tensor_repr(make(np.arange(17, dtype=np.int32), device_name="cuda:0"))
    assert text.endswith("14, 15, 16],\n       device='cuda:0', dtype=torch.int32)")


def test_device_suffix_of_a_gpu_tensor_precedes_grad_fn():
    node = type("AddBackward0", (Node,), {})()
    tensor = make(np.ones(2, np.float32), device_name="cuda:0", grad_fn=node)
    assert tensor_repr(tensor) == "tensor([1., 1.], device='cuda:0', grad_fn=<AddBackward0>)"


def test_node_with_a_name_method_prints_that_name():
    node = type("CppFunction", (Node,), {"name": lambda self: "torch::autograd::MyBackward"})()
    assert "grad_fn=<MyBackward>" in tensor_repr(make(np.ones(1, np.float32), grad_fn=node))


class Broken(Tensor):
    grad_fn = property(lambda self: (_ for _ in ()).throw(RuntimeError("stale view")))


def test_grad_fn_that_cannot_be_computed_prints_as_invalid():
    tensor = make(np.ones(1, np.float32), requires_grad=True, kind=Broken)
    assert tensor_repr(tensor) == "Broken([1.], grad_fn=<Invalid>)"


def test_parameter_prints_as_a_tensor_and_other_classes_by_name():
    assert tensor_repr(make(np.ones(1, np.float32), kind=Parameter)) == "tensor([1.])"
    named = type("Image", (Tensor,), {})
    assert (
        tensor_repr(make(np.ones((2, 1), np.float32), kind=named)) == "Image([[1.],\n       [1.]])"
    )


def test_views_print_their_elements():
    base = make(np.arange(12, dtype=np.int64))
    layout = Layout.of((3, 2), dtypes.int64, strides=(4, 2), offset=1)
    view = Tensor._from_storage(base._storage, layout)
    assert tensor_repr(view) == "tensor([[ 1,  3],\n        [ 5,  7],\n        [ 9, 11]])"


def test_printing_leaves_the_storage_unexported():
    tensor = make(np.arange(3))
    tensor_repr(tensor)
    assert not tensor._storage.is_exported()


def test_a_summary_of_a_large_tensor_is_quick():
    storage = Storage(4 << 20)
    storage.memory()[:] = bytes(4 << 20)
    layout = Layout.of((1 << 10, 1 << 10, 1 << 10), dtypes.int32, strides=(1 << 10, 1, 0))
    text = tensor_repr(Tensor._from_storage(storage, layout))
    assert text.count("[0, 0, 0,  ..., 0, 0, 0]") == 36


def test_given_contents_replace_the_values():
    tensor = make(np.zeros((2, 2), np.int8))
    assert tensor_repr(tensor, tensor_contents="[?]") == "tensor([?], dtype=torch.int8)"


def test_sci_mode_is_forgotten_by_the_next_call_as_in_pytorch():
    set_printoptions(sci_mode=True)
    set_printoptions(precision=2)
    assert get_printoptions() == {
        "precision": 2, "threshold": 1000, "edgeitems": 3, "linewidth": 80, "sci_mode": None,
    }  # fmt: skip


def test_printoptions_restores_what_was_set():
    set_printoptions(precision=1)
    with printoptions(precision=6):
        assert tensor_repr(make(np.array([0.5], np.float32))) == "tensor([0.500000])"
    assert tensor_repr(make(np.array([0.5], np.float32))) == "tensor([0.5])"


def test_printing_while_options_change_sees_whole_options():
    tensor = make(np.full((3, 3), 0.5, np.float32))
    stop = threading.Event()

    def change():
        while not stop.is_set():
            set_printoptions(profile="default")
            set_printoptions(profile="short")

    thread = threading.Thread(target=change)
    thread.start()
    seen = {tensor_repr(tensor) for _ in range(300)}
    stop.set()
    thread.join()
    words = ("0.5000, 0.5000, 0.5000", "0.50, 0.50, 0.50")
    assert all(text.count(words[0]) == 3 or text.count(words[1]) == 3 for text in seen)
