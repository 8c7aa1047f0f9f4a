"""Measures flambeau beside an installed PyTorch, in one interleaved run.

    python benchmarks/run.py --torch-python OTHER_ENVIRONMENT/bin/python

Both libraries stay loaded in a process each; blocks of about 0.12 s alternate between them, in
reversed order every round, so that a slow minute of the machine hits both. Printed are medians and
the median of the rounds' ratios; --out writes all blocks as JSON and --picture draws a PNG.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from workloads import WORKLOADS, Workload

HERE = Path(__file__).resolve().parent
LIBRARIES = ("flambeau", "torch")
IMPORT_SECONDS = 0.25
IMPORT_MEGABYTES = 60
SAME_CHECK = 1e-3
# Load average above which a measurement is not one.
BUSY = 0.7


@dataclass
class Row:
    """One line of the table; seconds (or megabytes) of every block by library."""

    name: str
    title: str
    unit: str
    samples: dict[str, list[float]]
    target: str = ""
    reached: bool | None = None
    note: str = ""
    first_seconds: dict[str, float] = field(default_factory=dict)

    def median(self, library: str) -> float:
        return statistics.median(self.samples[library])

    def ratio(self) -> float | None:
        if set(self.samples) != set(LIBRARIES) or not self.median("torch"):
            return None
        pairs = zip(self.samples["flambeau"], self.samples["torch"])
        return statistics.median(ours / theirs for ours, theirs in pairs)


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
    row = Row(workload.name, workload.title, "s", {p.library: [] for p in processes})
    checks = {}
    for process in processes:
        prepared = process.ask("prepare", workload.name)
        row.first_seconds[process.library] = prepared["first_seconds"]
        checks[process.library] = prepared["check"]
    order = list(processes)
    for _ in range(rounds):
        for process in order:
            row.samples[process.library].append(process.ask("block", workload.name)["seconds"])
        order.reverse()
    for process in processes:
        process.ask("forget", workload.name)
    judge(row, workload)
    if max(checks.values()) - min(checks.values()) > SAME_CHECK:
        row.note = f"RESULTS DIFFER: {checks}"
        row.reached = False
    return row


def judge(row: Row, workload: Workload) -> None:
    if workload.microseconds is not None:
        row.target = f"{workload.microseconds:g} µs"
        row.reached = row.median("flambeau") <= workload.microseconds * 1e-6
    ratio = row.ratio()
    if workload.ratio is not None:
        row.target = f"{workload.ratio:g}×"
        row.reached = None if ratio is None else ratio <= workload.ratio


def measure_import(pythons: dict[str, str], rounds: int) -> list[Row]:
    """Wall time of a fresh process less that of an empty one, and its resident memory."""
    seconds = {library: [] for library in pythons}
    megabytes = {library: [] for library in pythons}
    report = "; print(open('/proc/self/status').read())"
    with tempfile.TemporaryDirectory() as folder:
        # Bytecode as an installed package has it, wherever this checkout may write.
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for library, python in pythons.items():
            time_process(python, f"import {library}", environment)
        for _ in range(rounds):
            for library, python in pythons.items():
                empty, _ = time_process(python, "pass", environment)
                full, output = time_process(python, f"import {library}{report}", environment)
                seconds[library].append(full - empty)
                kilobytes = re.search(r"VmRSS:\s+(\d+)", output).group(1)
                megabytes[library].append(int(kilobytes) / 1000)
    time_row = Row("import", "import", "s", seconds, f"{IMPORT_SECONDS} s")
    time_row.reached = time_row.median("flambeau") <= IMPORT_SECONDS
    memory_row = Row("import_memory", "memory after import", "MB", megabytes)
    memory_row.target = f"{IMPORT_MEGABYTES} MB"
    memory_row.reached = memory_row.median("flambeau") <= IMPORT_MEGABYTES
    return [time_row, memory_row]


def time_process(python: str, code: str, environment: dict[str, str]) -> tuple[float, str]:
    start = time.perf_counter()
    run = subprocess.run([python, "-c", code], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start, run.stdout.decode()


def measure_leak(processes: list[Process]) -> Row:
    samples = {}
    for process in processes:
        samples[process.library] = [process.ask("leak")["growth_kilobytes"] / 1000]
    row = Row("leak", "growth over 9,000 of 10,000 MLP steps", "MB", samples, "1 MB")
    row.reached = row.median("flambeau") <= 1
    return row


def show(value: float, unit: str) -> str:
    if unit == "MB":
        return f"{value:.1f} MB"
    if value < 1e-4:
        return f"{value * 1e6:.2f} µs"
    if value < 0.1:
        return f"{value * 1e3:.2f} ms"
    return f"{value:.2f} s"


def table(rows: list[Row]) -> str:
    """The rows as a table that Markdown shows too."""
    lines = ["| | flambeau | PyTorch | ratio | target | |", "|---|---:|---:|---:|---:|---|"]
    for row in rows:
        ours = show(row.median("flambeau"), row.unit)
        theirs = show(row.median("torch"), row.unit) if "torch" in row.samples else ""
        ratio = row.ratio() if row.name != "leak" else None
        verdict = {True: "reached", False: "MISSED", None: ""}[row.reached]
        cells = [
            row.title,
            ours,
            theirs,
            f"{ratio:.2f}×" if ratio is not None else "",
            f"≤ {row.target}",
            f"{verdict} {row.note}".strip(),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: list[Row], path: Path, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.ratio() is not None and row.name != "leak"]
    shown.reverse()
    ratios = [row.ratio() for row in shown]
    figure = Figure(figsize=(9, 0.55 * len(shown) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = ["#d9622b" if ratio <= 1 else "#8a8a8a" for ratio in ratios]
    bars = axes.barh([row.title for row in shown], ratios, color=colours, height=0.62)
    axes.bar_label(bars, [f"{ratio:.2f}×" for ratio in ratios], padding=4, fontsize=9)
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(ratios) / 2, max(*ratios, 1) * 2)
    axes.set_xlabel("flambeau / PyTorch eager (left of the line: flambeau needs less)")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter that has torch (default: this one)")
    parser.add_argument("--alone", action="store_true", help="without PyTorch")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", metavar="REGEX", help="names of rows")
    parser.add_argument("--out", type=Path, help="write all blocks as JSON")
    parser.add_argument("--picture", type=Path, help="draw the ratios as PNG (needs matplotlib)")
    return parser


def main() -> int:
    options = build_parser().parse_args()
    pythons = {"flambeau": sys.executable}
    if not options.alone:
        pythons["torch"] = options.torch_python or sys.executable
    load = os.getloadavg()[0]
    wanted = re.compile(options.only).search
    rows = []
    if wanted("import"):
        rows += measure_import(pythons, min(options.rounds, 5))
    processes = [Process(name, python, options.threads) for name, python in pythons.items()]
    versions = {process.library: process.version for process in processes}
    try:
        for workload in WORKLOADS:
            if wanted(workload.name):
                rows.append(measure(workload, processes, options.rounds))
                print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        if wanted("leak"):
            rows.append(measure_leak(processes))
    finally:
        for process in processes:
            process.close()
    machine = f"{options.threads} threads, {platform.machine()}, Python {platform.python_version()}"
    title = f"flambeau beside PyTorch {versions.get('torch', '')} ({machine})"
    if load > BUSY:
        title += f" ON A BUSY MACHINE (load {load:.1f} before the start): not a measurement"
    print(f"{title}\n\n{table(rows)}")
    if options.out:
        record = {"title": title, "versions": versions, "rows": [asdict(row) for row in rows]}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    if options.picture:
        draw(rows, options.picture, title)
    return 1 if any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
