"""Measures flambeau beside an installed PyTorch, in one interleaved run.

    python benchmarks/run.py --torch-python OTHER_ENVIRONMENT/bin/python

Both libraries stay loaded in a process each; blocks of about 0.12 s alternate between them, in
reversed order every round, so that a slow minute of the machine hits both. A ratio is PyTorch's
time over ours (above 1 flambeau is faster), the median of the rounds. ``--compile`` measures both
libraries' ``compile`` too. ``--out`` writes all blocks as JSON, ``--picture`` draws a PNG.
"""

import argparse
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import picture
import process
import workloads
from workloads import Workload

HERE = Path(__file__).resolve().parent
# Two proving numbers are the same within this part.
SAME_CHECK = 5e-3
# Load average above which a measurement is not one.
BUSY = 0.7


@dataclass
class Row:
    """One line of the table; seconds (or megabytes) of every block by library."""

    name: str
    title: str
    unit: str
    samples: dict[str, list[float]]
    floor: float = 1.0
    note: str = ""
    first_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]

    def median(self, library: str) -> float | None:
        samples = self.samples.get(library)
        return statistics.median(samples) if samples else None

    def ratio(self, library: str = "flambeau", base: str = "torch") -> float | None:
        """How often our time goes into the other library's."""
        if not self.samples.get(library) or not self.samples.get(base):
            return None
        pairs = list(zip(self.samples[library], self.samples[base]))
        if not all(ours > 0 for ours, _ in pairs):
            return None
        return statistics.median(theirs / ours for ours, theirs in pairs)


class Process:
    """A worker of one library."""

    def __init__(self, library: str, python: str, threads: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        command = [python, str(HERE / "worker.py"), library, str(threads)]
        self.library = library
        self.pipe = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.version = self.answer()["version"]

    def answer(self) -> dict:
        line = self.pipe.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.library} ended; its error stands above")
        return json.loads(line)

    def ask(self, *request: str) -> dict:
        self.pipe.stdin.write(json.dumps(request) + "\n")
        self.pipe.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.pipe.stdin.close()
        self.pipe.wait()


def measure(workload: Workload, processes: list[Process], rounds: int) -> Row:
    row = Row(workload.name, workload.title, "s", {}, workload.floor)
    checks = {}
    ready = []
    for worker in processes:
        if worker.library.endswith("+compile") and not workload.compiled:
            continue
        answer = worker.ask("prepare", workload.name)
        if "error" in answer:
            row.note += f"{worker.library}: {answer['error']} "
            continue
        ready.append(worker)
        row.samples[worker.library] = []
        row.first_seconds[worker.library] = answer["first_seconds"]
        checks[worker.library] = answer["check"]
    for _ in range(rounds):
        for worker in ready:
            seconds = worker.ask("block", workload.name)["seconds"]
            row.samples[worker.library].append(seconds / workload.inner)
        ready.reverse()
    for worker in ready:
        worker.ask("forget", workload.name)
    if checks and max(checks.values()) - min(checks.values()) > SAME_CHECK * max(checks.values()):
        row.note += f"RESULTS DIFFER: {checks}"
    return row


def measure_leak(processes: list[Process]) -> Row:
    samples = {
        worker.library: [worker.ask("leak")["growth_kilobytes"] / 1000] for worker in processes
    }
    return Row("leak", "growth over 9,000 of 10,000 MLP steps", "MB", samples)


# -- what is shown ---------------------------------------------------------------------------------


def show(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "MB":
        return f"{value:.1f} MB"
    if value < 1e-4:
        return f"{value * 1e6:.2f} µs"
    return f"{value * 1e3:.2f} ms" if value < 0.1 else f"{value:.2f} s"


def show_ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}×"


def table(rows: list[Row], libraries: list[str]) -> str:
    """The rows as a table that Markdown shows too."""
    others = [name for name in libraries if name != "torch"]
    heads = ["", "PyTorch"]
    for name in others:
        heads += [name, "ratio"]
    lines = ["| " + " | ".join(heads) + " | |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        cells = [row.title, show(row.median("torch"), row.unit)]
        for name in others:
            base = "torch+compile" if name == "flambeau+compile" else "torch"
            cells += [show(row.median(name), row.unit), show_ratio(row.ratio(name, base))]
        ratio = row.ratio()
        behind = ratio is not None and ratio < row.floor and row.name != "leak"
        cells.append((f"below {row.floor:g} " if behind else "") + row.note)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def means(rows: list[Row]) -> str:
    """The geometric mean of each group's ratios."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        ratio = row.ratio()
        if ratio is not None and row.name != "leak" and "DIFFER" not in row.note:
            groups.setdefault(row.group, []).append(ratio)
    parts = [
        f"{group} {math.exp(statistics.fmean(map(math.log, ratios))):.2f}× ({len(ratios)})"
        for group, ratios in groups.items()
    ]
    return "geometric means: " + ", ".join(parts)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter that has torch (default: this one)")
    parser.add_argument("--alone", action="store_true", help="without PyTorch")
    parser.add_argument("--compile", action="store_true", help="compiled steps as well")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", metavar="REGEX", help="names of rows")
    parser.add_argument("--list", action="store_true", help="print the names of rows")
    parser.add_argument("--out", type=Path, help="write all blocks as JSON")
    parser.add_argument("--picture", type=Path, help="draw the ratios as PNG (needs matplotlib)")
    return parser


def main() -> int:
    options = build_parser().parse_args()
    everything = workloads.load()
    if options.list:
        print("\n".join([*everything, *process.ROWS, "leak"]))
        return 0
    pythons = {"flambeau": sys.executable}
    if not options.alone:
        pythons["torch"] = options.torch_python or sys.executable
    load = os.getloadavg()[0]
    wanted = re.compile(options.only).search
    libraries = [*pythons, *(f"{name}+compile" for name in pythons if options.compile)]
    rows = []
    workers = []
    try:
        for name in libraries:
            python = pythons[name.partition("+")[0]]
            workers.append(Process(name, python, options.threads))
        versions = {worker.library: worker.version for worker in workers}
        for workload in everything.values():
            if wanted(workload.name):
                rows.append(measure(workload, workers, options.rounds))
                line = table(rows[-1:], libraries).splitlines()[-1]
                print(line, file=sys.stderr, flush=True)
        if wanted("leak"):
            rows.append(measure_leak([w for w in workers if "+" not in w.library]))
    finally:
        for worker in workers:
            worker.close()
    for name, (title, unit, floor, samples) in process.measure(pythons, wanted, HERE).items():
        rows.append(Row(name, title, unit, samples, floor))
    threads = f"{options.threads} thread{'s' * (options.threads != 1)}"
    machine = f"{threads}, {platform.machine()}, Python {platform.python_version()}"
    title = f"flambeau beside PyTorch {versions.get('torch', '')} ({machine})"
    if load > BUSY:
        title += f" ON A BUSY MACHINE (load {load:.1f} before the start): not a measurement"
    print(f"{title}\n\n{table(rows, libraries)}\n\n{means(rows)}")
    if options.out:
        record = {"title": title, "versions": versions, "rows": [asdict(row) for row in rows]}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    if options.picture:
        shown = [(row.group, row.title, row.ratio()) for row in rows if row.name != "leak"]
        picture.draw([entry for entry in shown if entry[2] is not None], options.picture, title)
    return 1 if any("DIFFER" in row.note or "Error" in row.note for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
