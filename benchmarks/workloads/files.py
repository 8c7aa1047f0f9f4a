"""Data and files: loading batches, writing and reading a checkpoint of 100 MB."""

import tempfile
from pathlib import Path

from workloads import workload

FLOOR = 1.2


def _loader(workers):
    def prepare(lab):
        data = lab.torch.utils.data
        dataset = data.TensorDataset(lab.normal(1, 4096, 784), lab.integers(2, 10, 4096))
        loader = data.DataLoader(dataset, batch_size=64, shuffle=True, num_workers=workers)

        def step():
            lab.torch.manual_seed(0)
            return [images for images, _ in loader][-1]

        return step

    return prepare


workload("files.loader", "DataLoader, 64 batches of 64 rows", inner=64, floor=FLOOR)(_loader(0))
workload("files.loader_2", "the same with 2 workers", inner=64, floor=FLOOR)(_loader(2))


def _checkpoint(lab):
    folder = tempfile.TemporaryDirectory()
    state = {f"layer{k}.weight": lab.normal(k, 1 << 20) for k in range(25)}
    return folder, Path(folder.name) / "checkpoint.pth", state


@workload("files.save", "save of 100 MB", floor=FLOOR)
def save(lab):
    folder, path, state = _checkpoint(lab)

    def step():
        lab.torch.save(state, path)
        return folder and None

    return step


@workload("files.load", "load of 100 MB", floor=FLOOR)
def load(lab):
    folder, path, state = _checkpoint(lab)
    lab.torch.save(state, path)

    def step():
        return folder and list(lab.torch.load(path).values())

    return step
