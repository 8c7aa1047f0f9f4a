"""Checkpoints of optimizers and schedulers, and orders of data, live against PyTorch."""

import numpy as np
import pytest

import flambeau
import flambeau.optim
import flambeau.utils.data
from tests.optim import cases
from tests.utils.data import cases as data_cases

torch = pytest.importorskip("torch")

if torch.__name__ != "torch" or not hasattr(torch, "_C"):
    pytest.skip("torch is flambeau itself here", allow_module_level=True)


def resumed(library, name, state_dict, steps):
    """A new optimizer on fresh parameters that takes over a checkpoint and goes on."""
    cls, options = cases.OPTIMIZERS[name]
    params = [library.tensor(cases.values(k, shape)) for k, shape in enumerate(cases.SHAPES)]
    groups = [{"params": params[:1]}, {"params": params[1:]}]
    optimizer = getattr(library.optim, cls)(groups, **options)
    optimizer.load_state_dict(state_dict)
    cases.continue_run(library, optimizer, params, 5, steps)
    return params, optimizer


@pytest.mark.parametrize("name", ["sgd_momentum", "adam", "adam_amsgrad", "adamw"])
@pytest.mark.parametrize("writer, reader", [(torch, flambeau), (flambeau, torch)])
def test_checkpoints_go_both_ways(name, writer, reader, tmp_path):
    optimizer, _ = cases.run_optimizer(writer, name, steps=5)
    file = tmp_path / "optimizer.pt"
    writer.save(optimizer.state_dict(), file)
    loaded = reader.load(file)
    assert cases.plain(loaded) == cases.plain(optimizer.state_dict())
    ours, our_optimizer = resumed(reader, name, loaded, 3)
    theirs, their_optimizer = resumed(writer, name, optimizer.state_dict(), 3)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(cases.plain(mine), cases.plain(other), rtol=1e-6, atol=1e-6)
    keys = [list(state) for state in our_optimizer.state_dict()["state"].values()]
    assert keys == [list(state) for state in their_optimizer.state_dict()["state"].values()]


@pytest.mark.parametrize("name", cases.SCHEDULERS)
def test_scheduler_checkpoints_load_in_pytorch(name):
    _, scheduler = cases.make_scheduler(flambeau, name)
    _, theirs = cases.make_scheduler(torch, name)
    theirs.load_state_dict(scheduler.state_dict())
    assert theirs.state_dict().keys() == scheduler.state_dict().keys()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 33, 100])
def test_equal_seeds_shuffle_alike(seed, size):
    orders = []
    for library in (torch, flambeau):
        library.manual_seed(seed)
        loader = library.utils.data.DataLoader(data_cases.Squares(size), batch_size=7, shuffle=True)
        orders.append([[batch.tolist() for batch in loader] for _ in range(2)])
    assert orders[0] == orders[1]
