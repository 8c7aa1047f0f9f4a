"""Several recording threads: storages handed over, shared weights, flushes of other tapes.

What a single thread costs must not change because of them, so there are no locks on the path of an
operator; see `engine/turns.py`.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time

import pytest

import flambeau as torch
from flambeau.engine.tape import thread
from flambeau.engine.turns import RECORDING, turns


def run_all(*functions, seconds: float = 60.0) -> None:
    """Runs the functions in a thread each; what they raise is raised here."""
    errors: list[BaseException] = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=guarded, args=(f,), daemon=True) for f in functions]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(seconds)
        assert not worker.is_alive(), "threads wait for each other"
    if errors:
        raise errors[0]


def test_a_tensor_handed_over_is_computed_first():
    handed: queue.Queue[torch.Tensor] = queue.Queue()
    results = []

    def producer():
        for k in range(50):
            handed.put(torch.ones(64) * float(k) + 1.0)

    def consumer():
        for _ in range(50):
            x = handed.get(timeout=30)
            results.append((x * 2.0).sum().item())

    run_all(producer, consumer)
    assert results == [64 * 2.0 * (k + 1) for k in range(50)]


def test_threads_ping_pong_with_writes_in_place():
    x = torch.zeros(33)
    turn = [threading.Event(), threading.Event()]
    turn[0].set()

    def player(me):
        for _ in range(40):
            assert turn[me].wait(30)
            turn[me].clear()
            x.add_(1.0)
            x.mul_(1.0)
            turn[1 - me].set()

    run_all(lambda: player(0), lambda: player(1))
    assert x.tolist() == [80.0] * 33


def test_threads_share_weights_that_they_only_read():
    torch.manual_seed(0)
    weight, bias = torch.randn(16, 16) * 0.1, torch.randn(16)
    inputs = [torch.randn(4, 16) for _ in range(4)]
    expected = [((x @ weight + bias).relu() @ weight).tolist() for x in inputs]
    found: list[list] = [[] for _ in inputs]

    def worker(k):
        for _ in range(15):
            y = ((inputs[k] @ weight + bias).relu() @ weight).tolist()
            found[k].append(y)

    run_all(*[lambda k=k: worker(k) for k in range(len(inputs))])
    for k, results in enumerate(found):
        assert all(y == expected[k] for y in results)


def test_threads_that_want_each_others_tensors_do_not_wait_for_ever():
    a, b = torch.zeros(8), torch.zeros(8)
    stop = time.monotonic() + 2.0

    def forward():
        while time.monotonic() < stop:
            a.add_(b)

    def backward():
        while time.monotonic() < stop:
            b.add_(a)

    run_all(forward, backward, lambda: [(a + b).tolist() for _ in range(20)])
    assert len(a.tolist()) == 8


def test_a_thread_without_a_tape_reads_results():
    x = torch.ones(10) * 3.0
    found = []
    run_all(lambda: found.append(x.tolist()))
    assert found == [[3.0] * 10]


def test_results_of_a_thread_that_ended():
    made = []
    run_all(lambda: made.append(torch.ones(10) * 3.0))
    assert made[0]._storage.tape is not None
    assert (made[0] + 1.0).tolist() == [4.0] * 10


def test_a_mark_left_by_an_interrupt_holds_nobody_up():
    x = torch.ones(10) * 3.0
    tape = thread.tape
    tape.busy = RECORDING
    found = []
    run_all(lambda: found.append(x.tolist()))
    assert found == [[3.0] * 10]


def test_training_in_two_threads_gives_what_one_gives():
    def train(seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(8, 6, generator=generator)
        w = torch.randn(6, 3, generator=generator).requires_grad_()
        for _ in range(10):
            loss = ((x @ w).tanh() ** 2).mean()
            loss.backward()
            with torch.no_grad():
                w -= 0.1 * w.grad
            w.grad = None
        return w.tolist()

    expected = [train(1), train(2)]
    found = {}
    run_all(lambda: found.update({1: train(1)}), lambda: found.update({2: train(2)}))
    assert [found[1], found[2]] == expected


ALONE = """
import flambeau as torch
from flambeau.engine.turns import turns
(torch.ones(3) + 1.0).tolist()
assert not turns.several
"""


def test_one_thread_never_shares():
    subprocess.run([sys.executable, "-c", ALONE], check=True, env={**os.environ})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_another_thread_runs_plans():
    stop = threading.Event()

    def busy():
        x = torch.zeros(1000)
        while not stop.is_set():
            x = (x + 1.0).sin()
            x.tolist()

    worker = threading.Thread(target=busy, daemon=True)
    worker.start()
    try:
        for _ in range(5):
            y = torch.ones(100) + 1.0
            child = os.fork()
            if not child:
                status = 1
                try:
                    status = 0 if (y * 2.0).sum().item() == 400.0 else 2
                finally:
                    os._exit(status)
            deadline = time.monotonic() + 30
            done = 0
            while not done and time.monotonic() < deadline:
                done, status = os.waitpid(child, os.WNOHANG)
                time.sleep(0.005)
            assert done, "the child hangs"
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        stop.set()
        worker.join(30)
    assert turns.several


def test_another_threads_calls_are_forgotten_with_the_default_dtype():
    x = torch.ones(4, dtype=torch.int64)
    found, turn, answered = [], threading.Event(), threading.Event()

    def watcher():
        found.append((x / 2).dtype)
        answered.set()
        assert turn.wait(30)
        found.append((x / 2).dtype)

    def setter():
        assert answered.wait(30)
        torch.set_default_dtype(torch.float64)
        turn.set()

    try:
        run_all(watcher, setter)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == [torch.float32, torch.float64]
