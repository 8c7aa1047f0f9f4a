"""The thread pool and the plan executor."""

import array
import ctypes
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from flambeau.backend import pool_ir
from flambeau.backend.cpu import CpuBackend
from flambeau.backend.interface import PLAN_WORDS, RELOCATION_WORDS, STEP_WORDS, PlanWord
from flambeau.compiler import jit
from flambeau.compiler.target import describe_host

# increment: adds args[1] to the int64s args[0][begin:end]; last: stores the number of its range
KERNELS = """
define void @increment(ptr %args, i64 %begin, i64 %end) {
entry:
  %p = load ptr, ptr %args
  %step.at = getelementptr i64, ptr %args, i64 1
  %step = load i64, ptr %step.at
  br label %head
head:
  %i = phi i64 [%begin, %entry], [%next, %body]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %q = getelementptr i64, ptr %p, i64 %i
  %v = load i64, ptr %q
  %w = add i64 %v, %step
  store i64 %w, ptr %q
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}
define void @count_ranges(ptr %args, i64 %begin, i64 %end) {
  %p = load ptr, ptr %args
  %old = atomicrmw add ptr %p, i64 1 monotonic
  ret void
}
"""


def address_of(words):
    return words.buffer_info()[0]


class Plan:
    """A plan block; ``steps`` are (function, block table index, step value, count, grain)."""

    def __init__(self, backend, table, steps):
        self.args = [array.array("q", [0, value]) for _, _, value, _, _ in steps]
        relocations, records = array.array("q"), array.array("q")
        for args, (function, index, _, count, grain) in zip(self.args, steps, strict=True):
            relocations.extend((address_of(args), index, 0))
            records.extend((function, address_of(args), count, grain))
        self.table = array.array("q", table)
        self.parts = relocations, records
        self.words = array.array("q", [0] * PLAN_WORDS)
        self.words[PlanWord.RELOCATION_COUNT] = len(relocations) // RELOCATION_WORDS
        self.words[PlanWord.RELOCATIONS] = address_of(relocations)
        self.words[PlanWord.STEP_COUNT] = len(records) // STEP_WORDS
        self.words[PlanWord.STEPS] = address_of(records)
        self.words[PlanWord.TABLE] = address_of(self.table)
        self.words[PlanWord.POOL] = backend.pool_address
        self.address = address_of(self.words)


@pytest.fixture(scope="module")
def kernels():
    return jit.compile_module("test_cpu kernels", lambda: KERNELS, ["increment", "count_ranges"])


@pytest.fixture
def backend():
    return CpuBackend(jit.compile_module)


def cleared(backend, count):
    block = backend.allocate(8 * count)
    backend.fill(block.address, 0, 8 * count)
    return block


def values(block):
    return (ctypes.c_int64 * (block.nbytes // 8)).from_address(block.address)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_every_task_runs_once(backend, kernels, threads):
    backend.set_num_threads(threads)
    assert backend.get_num_threads() == threads
    increment = kernels["increment"]
    for count in (0, 1, 2, 7, 64, 1000, 12345):
        for grain in (1, 3, 100, 5000):
            block = cleared(backend, count)
            plan = Plan(backend, [block.address], [(increment, 0, 5, count, grain)])
            backend.execute(plan.address)
            assert set(values(block)) <= {5}


def test_steps_run_in_order_and_the_table_is_read_each_time(backend, kernels):
    backend.set_num_threads(2)
    first, second = cleared(backend, 5000), cleared(backend, 5000)
    steps = [(kernels["increment"], 0, value, 5000, 50) for value in (1, 10, 100)]
    plan = Plan(backend, [first.address], steps)
    backend.execute(plan.address)
    plan.table[0] = second.address
    backend.execute(plan.address)
    backend.execute(plan.address)
    assert set(values(first)) == {111}
    assert set(values(second)) == {222}


def test_ranges_respect_the_grain(backend, kernels):
    backend.set_num_threads(2)
    cell = cleared(backend, 1)
    for count, grain, most in ((100, 100, 1), (100, 60, 2), (1_000_000, 1, 128)):
        values(cell)[0] = 0
        plan = Plan(backend, [cell.address], [(kernels["count_ranges"], 0, 0, count, grain)])
        backend.execute(plan.address)
        assert 1 <= values(cell)[0] <= most


def test_parallel_for(backend, kernels):
    block = cleared(backend, 1000)
    args = array.array("q", [block.address, 3])
    backend.parallel_for(kernels["increment"], address_of(args), 1000, 10)
    assert set(values(block)) == {3}


def test_execute_checks_its_argument(backend):
    with pytest.raises(TypeError):
        backend.execute("plan")
    with pytest.raises(TypeError):
        backend.execute()
    empty = Plan(backend, [], [])
    assert backend.execute(empty.address) is None


def test_changing_the_number_of_threads_between_jobs(backend, kernels):
    generator = random.Random(0)
    block = cleared(backend, 3000)
    plan = Plan(backend, [block.address], [(kernels["increment"], 0, 1, 3000, 7)])
    for _ in range(300):
        backend.set_num_threads(generator.randint(1, 6))
        backend.execute(plan.address)
    assert set(values(block)) == {300}
    with pytest.raises(RuntimeError, match="positive"):
        backend.set_num_threads(0)


def test_many_jobs_from_many_threads(backend, kernels):
    """One thread at a time gets the pool, the others work alone: nobody waits, all is done."""
    backend.set_num_threads(3)
    blocks = [cleared(backend, 2000) for _ in range(4)]

    def work(block):
        plan = Plan(backend, [block.address], [(kernels["increment"], 0, 1, 2000, 10)] * 3)
        for _ in range(1000):
            backend.execute(plan.address)

    threads = [threading.Thread(target=work, args=(block,)) for block in blocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(set(values(block)) == {3000} for block in blocks)


def test_sleeping_threads_wake(backend, kernels):
    backend.set_num_threads(2)
    block = cleared(backend, 20000)
    plan = Plan(backend, [block.address], [(kernels["increment"], 0, 1, 20000, 10)])
    for pause in (0, 0.0001, 0.0003, 0.001, 0.003) * 20:
        time.sleep(pause)
        backend.execute(plan.address)
    assert set(values(block)) == {100}


def test_an_idle_pool_takes_no_time(backend, kernels):
    backend.set_num_threads(2)
    block = cleared(backend, 1000)
    plan = Plan(backend, [block.address], [(kernels["increment"], 0, 1, 1000, 10)])
    backend.execute(plan.address)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.02


def run_in_child(work):
    """``work()`` in a forked child; fails the test unless it returns True within ten seconds."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the forked child hangs")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_children_start_their_own_threads(backend, kernels):
    backend.set_num_threads(3)
    block = cleared(backend, 5000)
    plan = Plan(backend, [block.address], [(kernels["increment"], 0, 1, 5000, 10)])
    backend.execute(plan.address)

    def work():
        for _ in range(50):
            backend.execute(plan.address)
        threads = len(os.listdir("/proc/self/task"))
        return set(values(block)) == {51} and threads == 3 and backend.allocate(1 << 21).nbytes

    for _ in range(3):
        run_in_child(work)
    backend.execute(plan.address)
    assert set(values(block)) == {2}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_while_another_thread_works(backend, kernels):
    backend.set_num_threads(2)
    busy, mine = cleared(backend, 5000), cleared(backend, 5000)
    step = kernels["increment"]
    background = Plan(backend, [busy.address], [(step, 0, 1, 5000, 10)])
    plan = Plan(backend, [mine.address], [(step, 0, 1, 5000, 10)])
    stop = threading.Event()

    def work():
        while not stop.is_set():
            backend.execute(background.address)

    thread = threading.Thread(target=work)
    thread.start()

    def child():
        backend.execute(plan.address)
        return set(values(mine)) == {1}

    try:
        for _ in range(10):
            run_in_child(child)
    finally:
        stop.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_while_another_thread_allocates(backend):
    locked, forked = threading.Event(), threading.Event()

    def hold():
        with backend.allocator._lock:
            locked.set()
            forked.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    try:
        run_in_child(lambda: backend.allocate(3 << 20).address != 0)
    finally:
        forked.set()
        thread.join()


EXIT = """
import array, sys, threading
sys.path.insert(0, "tests/backend")
from flambeau.backend.cpu import CpuBackend
from flambeau.compiler import jit
import test_cpu
kernels = jit.compile_module("test_cpu kernels", lambda: test_cpu.KERNELS, ["increment"])
backend = CpuBackend(jit.compile_module)
backend.set_num_threads(4)
block = test_cpu.cleared(backend, 100000)
steps = [(kernels["increment"], 0, 1, 100000, 10)]
plan = test_cpu.Plan(backend, [block.address], steps)
backend.execute(plan.address)
def work():
    while True:
        backend.execute(plan.address)
if len(sys.argv) > 1:
    threading.Thread(target=work, daemon=True).start()
"""


@pytest.mark.parametrize("arguments", [[], ["daemon"]])
def test_exit_with_living_threads(arguments):
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", EXIT, *arguments],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")


def test_the_pool_compiles_for_aarch64():
    neon = describe_host("aarch64", frozenset({"fp", "asimd"}), None)
    image = jit.emit_image(pool_ir.pool_ir("aarch64"), neon)
    assert set(pool_ir.FUNCTIONS) <= set(image.symbols)
    assert "pthread_create" in image.externals


def test_copy_and_fill(backend):
    block = cleared(backend, 4)
    backend.fill(block.address, 255, 16)
    backend.copy(block.address + 8, block.address, 16)
    assert list(values(block)) == [-1, -1, -1, 0]
