"""Writes what one training step really prints into docs/architecture.md.

    python tools/record_architecture.py

Runs the program that the page shows and puts its tape, its plan and the kernel of one step between
the page's markers ``<!-- tape: begin -->`` and ``<!-- tape: end -->`` (``plan``, ``kernel``).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
# The step of the plan whose kernel is shown: the activation with its mask.
STEP = 0


def program(page: str) -> str:
    """The page's first Python block, which defines ``step``."""
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None, "the page shows no program"
    return found[1]


def printed(source: str, part: str) -> str:
    """A part of what ``flambeau.explain`` says of the first step."""
    lines = [source, "torch.synchronize()", f"print(torch.explain(step).{part})"]
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip("\n")


def one_kernel(text: str) -> str:
    """The lines about the kernel of step `STEP`."""
    found = re.search(rf"^step {STEP}: .*?(?=^step |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"step {STEP} has no kernel"
    return found[0].rstrip("\n")


def filled(page: str, name: str, text: str) -> str:
    """The page with other text between the markers ``name``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n```text\n{text}\n```\n{end}{after}"


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    source = program(page)
    page = filled(page, "tape", printed(source, "tape"))
    page = filled(page, "plan", printed(source, "plan"))
    page = filled(page, "kernel", one_kernel(printed(source, "kernels")))
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
