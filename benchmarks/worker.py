"""One library in a process of its own, measured on request.

run.py starts it as ``worker.py LIBRARY`` and talks to it in lines of JSON.
"""

import gc
import importlib
import json
import sys
import time
from pathlib import Path

WARM_UP_SECONDS = 0.5
BLOCK_SECONDS = 0.12
LEAK_STEPS = 10_000


def resident_kilobytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmRSS")


class Worker:
    def __init__(self, library):
        self.library = library
        self.jobs = {}
        self.counts = {}

    def prepare(self, name):
        """Builds and warms up; answers the time of the first step and the proving number."""
        from workloads import WORKLOADS

        workload = next(entry for entry in WORKLOADS if entry.name == name)
        job = workload.prepare(self.library)
        start = time.perf_counter()
        job.step()
        job.finish()
        first = time.perf_counter() - start
        check = job.check()
        self.jobs[name] = job
        self.counts[name] = self.steps_of_a_block(job)
        return {"first_seconds": first, "check": check}

    def steps_of_a_block(self, job):
        count = 1
        end = time.perf_counter() + WARM_UP_SECONDS
        while True:
            seconds = self.run(job, count)
            if seconds > BLOCK_SECONDS / 2 and time.perf_counter() > end:
                return max(1, round(count * BLOCK_SECONDS / seconds))
            if seconds < BLOCK_SECONDS / 2:
                count *= 2

    def run(self, job, count):
        step = job.step
        gc.collect()
        start = time.perf_counter()
        for _ in range(count):
            step()
        job.finish()
        return time.perf_counter() - start

    def block(self, name):
        count = self.counts[name]
        return {"seconds": self.run(self.jobs[name], count) / count}

    def leak(self):
        """Growth of the process from a tenth of the steps to all of them."""
        from workloads import mlp_adam

        job = mlp_adam(self.library)
        self.run(job, LEAK_STEPS // 10)
        before = resident_kilobytes()
        self.run(job, LEAK_STEPS - LEAK_STEPS // 10)
        return {"steps": LEAK_STEPS, "growth_kilobytes": resident_kilobytes() - before}

    def forget(self, name):
        del self.jobs[name]
        gc.collect()
        return {}


def main():
    library_name, threads = sys.argv[1:]
    library = importlib.import_module(library_name)
    library.set_num_threads(int(threads))
    worker = Worker(library)
    print(json.dumps({"version": library.__version__}), flush=True)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        print(json.dumps(getattr(worker, verb)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
