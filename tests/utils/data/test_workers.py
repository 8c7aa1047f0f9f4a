"""Worker processes: their failures, their death, and that nothing of them is left."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import flambeau as torch
from flambeau.utils.data import DataLoader, IterableDataset

ROOT = Path(__file__).resolve().parents[3]


class Failing:
    """Eight samples of which the sixth does something bad."""

    def __init__(self, action):
        self.action = action

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 5:
            self.action()
        return torch.full((300,), float(index))


class Difficult(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


def nothing():
    pass


def raise_value():
    raise ValueError("bad sample")


def raise_key():
    raise KeyError("missing")


def raise_difficult():
    raise Difficult(1, 2)


def raise_local():
    class Local(Exception):
        pass

    raise Local("here only")


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def exit_at_once():
    os._exit(3)


def sleep_long():
    time.sleep(60)


def load(action, **options):
    loader = DataLoader(Failing(action), batch_size=2, num_workers=2, **options)
    return [batch[:, 0].tolist() for batch in loader]


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    gc.collect()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_start_methods(method):
    expected = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]
    assert load(nothing, multiprocessing_context=method) == expected


@pytest.mark.parametrize(
    "action, kind, name, text",
    [
        (raise_value, ValueError, "ValueError", "bad sample"),
        (raise_key, KeyError, "KeyError", "'missing'"),
        (raise_difficult, RuntimeError, "Difficult", "(1, 2)"),
        (raise_local, RuntimeError, "Local", "here only"),
    ],
)
def test_exceptions_come_back_with_traceback_and_sample(action, kind, name, text):
    with pytest.raises(kind) as caught:
        load(action)
    message = str(caught.value)
    start = f"Caught {name} in DataLoader worker process 0.\nOriginal Traceback (most recent call"
    assert message.startswith(start)
    assert text in message
    assert message.endswith("while loading sample 5 of Failing\n")


def test_loading_goes_on_after_an_exception():
    loader = DataLoader(Failing(raise_value), num_workers=2, persistent_workers=True)
    iterator = iter(loader)
    values = []
    for _ in range(8):
        try:
            values.append(next(iterator)[0, 0].item())
        except ValueError:
            values.append("failed")
    assert values == [0.0, 1.0, 2.0, 3.0, 4.0, "failed", 6.0, 7.0]


@pytest.mark.parametrize(
    "action, cause",
    [(kill_self, "is killed by signal: Killed. "), (exit_at_once, "with exit code 3.")],
)
def test_a_dead_worker_is_noticed(action, cause):
    with pytest.raises(RuntimeError, match=r"worker \(pid\(s\) \d+\) exited unexpected") as caught:
        load(action)
    assert cause in str(caught.value.__cause__)


def test_timeout():
    with pytest.raises(RuntimeError, match="DataLoader timed out after 0.5 seconds"):
        load(sleep_long, timeout=0.5)


def test_init_function_and_its_failure():
    seen = DataLoader(Failing(nothing), num_workers=1, worker_init_fn=torch.manual_seed)
    assert len(list(seen)) == 8
    with pytest.raises(TypeError, match="Caught TypeError in DataLoader worker process 0"):
        list(DataLoader(Failing(nothing), num_workers=1, worker_init_fn=len))


def test_a_dropped_iterator_ends_its_workers():
    iterator = iter(DataLoader(Failing(nothing), num_workers=2))
    next(iterator)
    processes = iterator._workers
    del iterator
    gc.collect()
    assert multiprocessing.active_children() == []
    assert len(processes) == 2


def test_any_order():
    loader = DataLoader(Failing(nothing), num_workers=2, in_order=False)
    assert sorted(batch[0, 0].item() for batch in loader) == list(range(8))


def test_no_descriptor_is_left_open():
    load(nothing)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        load(nothing)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_batches_outlive_their_workers_and_may_be_written():
    batches = list(DataLoader(Failing(nothing), batch_size=4, num_workers=1))
    batches[0] += 1
    assert batches[0][:, 299].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert batches[1].dtype is torch.float32


class Mixed:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {
            "small": torch.tensor(index),
            "empty": torch.zeros(0, 3),
            "half": torch.ones(2, dtype=torch.bfloat16),
            "flags": torch.tensor([True, False]),
            "array": np.full(1000, index),
            "text": "a" * 20000,
            "strided": torch.arange(6).reshape(2, 3).t(),
        }


def test_what_travels():
    here = list(DataLoader(Mixed(), batch_size=None))
    there = list(DataLoader(Mixed(), batch_size=None, num_workers=1))
    for ours, theirs in zip(here, there, strict=True):
        assert list(ours) == list(theirs)
        assert ours.pop("text") == theirs.pop("text")
        for name, value in ours.items():
            assert value.dtype is theirs[name].dtype
            assert value.tolist() == theirs[name].tolist()


def test_many_waiting_tasks_do_not_block():
    loader = DataLoader(
        range(10),
        batch_sampler=[[1] * 3000] * 400,
        num_workers=1,
        prefetch_factor=300,
        collate_fn=len,
    )
    assert list(loader) == [3000] * 400


class Endless(IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        assert info.num_workers == 2 and info.dataset is not None
        value = info.id
        while True:
            yield value
            value += info.num_workers


def test_an_endless_iterable():
    iterator = iter(DataLoader(Endless(), batch_size=2, num_workers=2))
    assert [next(iterator).tolist() for _ in range(3)] == [[0, 2], [1, 3], [4, 6]]


def test_interrupting_the_program_leaves_no_process(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal
            import time
            from flambeau.utils.data import DataLoader

            # A shell's background jobs are born ignoring it.
            signal.signal(signal.SIGINT, signal.default_int_handler)

            class Slow:
                def __len__(self):
                    return 1000
                def __getitem__(self, index):
                    time.sleep(0.05)
                    return index

            iterator = iter(DataLoader(Slow(), num_workers=2))
            next(iterator)
            print(*[worker.pid for worker in iterator._workers], flush=True)
            for batch in iterator:
                pass
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = [int(pid) for pid in process.stdout.readline().split()]
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert errors.count("KeyboardInterrupt") == 1
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
