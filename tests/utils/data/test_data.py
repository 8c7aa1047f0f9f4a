"""Data sets, samplers, batches and loaders against PyTorch 2.13 (tools/record_data.py)."""

import json
from pathlib import Path

import pytest

import flambeau as torch
from flambeau.utils.data.fetch import gather_batch
from tests.utils.data import cases

REFERENCES = Path(__file__).resolve().parents[2] / "references" / "data"
CASES = json.loads((REFERENCES / "cases.json").read_text())
COLLATED = json.loads((REFERENCES / "collated.json").read_text())
ERRORS = json.loads((REFERENCES / "errors.json").read_text())


def as_json(value):
    return json.loads(json.dumps(value, default=repr))


@pytest.mark.parametrize("name", CASES)
def test_same_batches_as_pytorch(name):
    assert as_json(cases.describe_case(torch, name)) == CASES[name]


@pytest.mark.parametrize("name", COLLATED)
def test_collate_and_convert(name):
    assert as_json(cases.describe_collated(torch, name)) == COLLATED[name]


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    assert cases.describe_error(torch, name) == ERRORS[name]


def test_the_gathered_batch_is_the_stacked_one():
    dataset = cases.tensors(torch)
    inner = torch.utils.data.Subset(dataset, [9, 0, 4, 4])
    gathered = gather_batch(inner, [3, 0, 1])
    stacked = torch.utils.data.default_collate([inner[i] for i in (3, 0, 1)])
    assert cases.plain(gathered) == cases.plain(stacked)


def test_a_gathered_batch_is_a_copy():
    dataset = cases.tensors(torch)
    batch = gather_batch(dataset, [0, 1])
    batch[0].zero_()
    assert dataset[1][0].tolist() == [3, 4, 5]


@pytest.mark.parametrize("indices", [[-1], [10], [1.0], [True], []])
def test_what_is_not_gathered(indices):
    assert gather_batch(cases.tensors(torch), indices) is None


def test_subclasses_are_not_gathered():
    class Doubled(torch.utils.data.TensorDataset):
        def __getitem__(self, index):
            return tuple(2 * tensor for tensor in super().__getitem__(index))

    loader = torch.utils.data.DataLoader(Doubled(torch.arange(4)), batch_size=4)
    assert [batch[0].tolist() for batch in loader] == [[0, 2, 4, 6]]


def test_an_index_out_of_range_names_the_sample():
    loader = torch.utils.data.DataLoader(cases.Squares(3), batch_sampler=[[1, 7]])
    with pytest.raises(IndexError) as caught:
        list(loader)
    assert caught.value.__notes__ == ["while loading sample 7 of Squares"]


def test_an_extended_map_of_collate_functions():
    class Word:
        pass

    table = {Word: lambda batch, *, collate_fn_map: len(batch)}
    collated = torch.utils.data.collate.collate([[Word()], [Word()]], collate_fn_map=table)
    assert collated == [2]


def test_length_of_an_iterable_that_gives_more_warns():
    class Long(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(3))

        def __len__(self):
            return 2

    loader = torch.utils.data.DataLoader(Long(), batch_size=None)
    assert len(loader) == 2
    with pytest.warns(UserWarning, match="was reported to be 2"):
        assert list(loader) == [0, 1, 2]


def test_pinning_without_an_accelerator_warns():
    loader = torch.utils.data.DataLoader([1], pin_memory=True)
    with pytest.warns(UserWarning, match="no accelerator is found"):
        list(loader)


def test_more_workers_than_processors_warn():
    with pytest.warns(UserWarning, match="suggested max number of worker"):
        torch.utils.data.DataLoader([1], num_workers=1000)


def test_the_names_of_an_old_pytorch():
    x, y = torch.arange(4), torch.arange(4) * 2
    with pytest.warns(FutureWarning, match="data_tensor=…, target_tensor=…"):
        dataset = torch.utils.data.TensorDataset(data_tensor=x, target_tensor=y)
    assert dataset.tensors == (x, y)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        torch.utils.data.TensorDataset(x, other=y)
