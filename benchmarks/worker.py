"""One library in a process of its own, measured on request.

run.py starts it as ``worker.py LIBRARY THREADS`` (``flambeau``, ``torch+compile``, …) and talks to
it in lines of JSON.
"""

import gc
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import workloads

WARM_UP_SECONDS = 0.4
BLOCK_SECONDS = 0.12
LEAK_STEPS = 10_000
# Calls after which the proving number is taken; training has done three steps by then.
CHECKED_CALLS = 3


def resident_kilobytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmRSS")


def outputs_of(result: Any) -> list[Any]:
    if result is None:
        return []
    return list(result) if isinstance(result, (list, tuple)) else [result]


class Worker:
    def __init__(self, library: Any, compile_steps: bool) -> None:
        self.library = library
        self.lab = workloads.Lab(library, compile_steps)
        self.steps: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

    def prepare(self, name: str) -> dict[str, Any]:
        """Builds and warms up; answers the time of the first call and the proving number."""
        step = workloads.load()[name].prepare(self.lab)
        start = time.perf_counter()
        self.touch(step())
        first = time.perf_counter() - start
        for _ in range(CHECKED_CALLS - 1):
            result = step()
        outputs = [t for t in outputs_of(result) if t.dtype.is_floating_point]
        check = sum(t.detach().double().abs().mean().item() for t in outputs)
        self.steps[name] = step
        self.counts[name] = self.steps_of_a_block(step)
        return {"first_seconds": first, "check": check}

    @staticmethod
    def touch(result: Any) -> None:
        """Everything that a step gave has its memory, and is in it."""
        for tensor in outputs_of(result):
            tensor.data_ptr()

    def steps_of_a_block(self, step: Any) -> int:
        count = 1
        end = time.perf_counter() + WARM_UP_SECONDS
        while True:
            seconds = self.run(step, count)
            if seconds > BLOCK_SECONDS / 2 and time.perf_counter() > end:
                return max(1, round(count * BLOCK_SECONDS / seconds))
            if seconds < BLOCK_SECONDS / 2:
                count *= 2

    def run(self, step: Any, count: int) -> float:
        gc.collect()
        start = time.perf_counter()
        for _ in range(count):
            self.touch(step())
        if hasattr(self.library, "synchronize"):
            self.library.synchronize()
        return time.perf_counter() - start

    def block(self, name: str) -> dict[str, float]:
        count = self.counts[name]
        return {"seconds": self.run(self.steps[name], count) / count}

    def leak(self) -> dict[str, int]:
        """Growth of the process from a tenth of the steps to all of them."""
        step = workloads.load()["training.mlp_adam"].prepare(self.lab)
        self.run(step, LEAK_STEPS // 10)
        before = resident_kilobytes()
        self.run(step, LEAK_STEPS - LEAK_STEPS // 10)
        return {"steps": LEAK_STEPS, "growth_kilobytes": resident_kilobytes() - before}

    def forget(self, name: str) -> dict[str, Any]:
        del self.steps[name]
        gc.collect()
        return {}


def main() -> None:
    name, threads = sys.argv[1:]
    library_name, _, option = name.partition("+")
    library = importlib.import_module(library_name)
    library.set_num_threads(int(threads))
    worker = Worker(library, option == "compile")
    print(json.dumps({"version": library.__version__}), flush=True)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        try:
            answer = getattr(worker, verb)(*arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
