"""Plans: everything between two flushes as one native call.

A plan belongs to a path of recorded calls and a set of storages that are alive at its end. Building
one fuses, lowers, compiles and lays out memory; running it packs a table of addresses and numbers
and calls the native executor, which writes them into the argument blocks and walks the steps.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from struct import Struct

import numpy as np

from flambeau.backend.debug_allocator import DebugAllocator
from flambeau.compiler.epilogue import EPILOGUE, EPILOGUE_ARGUMENTS
from flambeau.compiler.image import Functions
from flambeau.compiler.jit import Module, compile_many
from flambeau.core.config import config
from flambeau.engine.call import Call
from flambeau.engine.checked_run import CheckedRun, NativeStep
from flambeau.engine.epilogue import attach_epilogues
from flambeau.engine.fuse import Group, fuse
from flambeau.engine.lower import (
    Address,
    Constant,
    EpiloguePart,
    NativeCall,
    Number,
    Scratch,
    Step,
    lower,
)
from flambeau.engine.memory import Interval, plan_memory
from flambeau.engine.runtime import backend, target
from flambeau.engine.storage import Storage


class Plan:
    """A compiled flush.  ``external`` are the slots whose storages' memory it uses."""

    def __init__(self, calls: Sequence[Call], live: Sequence[int]) -> None:
        """``live[slot]`` is truthy for storages that somebody can still see after the flush."""
        liveness = _Liveness(calls, live)
        starts = _number_starts(calls)
        groups = attach_epilogues(fuse(calls, liveness.wanted), calls, live, target)
        stored = liveness.stored(groups)
        self.steps = [
            step
            for step in (lower(g, calls, starts, stored, target) for g in groups)
            if any(native.tasks for native in step.native)
        ]
        arena_slots = {s: n for s, n in liveness.fresh.items() if s in stored and not live[s]}
        intervals = _intervals(self.steps, arena_slots)
        offsets, self.arena_bytes = plan_memory(intervals)
        self.arena_offsets = {name: at for name, at in offsets.items() if name >= 0}
        used = {s for step in self.steps for s in step.reads | step.writes}
        self.external = tuple(sorted((used | liveness.empty_results) - set(arena_slots)))
        kinds = [kind for call in calls for kind in call.scalars]
        self._assemble(kinds, intervals, offsets)
        if config.debug & {"plan", "kernel"}:
            self._print_debug()

    # -- running -------------------------------------------------------------------------------

    def run(self, slots: Sequence[Storage], numbers: Sequence[int | float]) -> None:
        """Fills every live storage; ``slots`` and ``numbers`` as the tape holds them."""
        addresses = []
        for s in self.external:
            storage = slots[s]
            block = storage.block
            if block is None:
                block = storage.allocate()
            addresses.append(block.address)
        if self._checked is not None:
            self._run_checked(self._checked, slots, addresses, numbers)
            return
        if self.arena_bytes:
            arena = backend.allocate(self.arena_bytes)
            addresses.append(arena.address)
        # numpy's arrays are buffers; their stubs say so from Python 3.12 on.
        self._pack(self._table, 0, *addresses, *numbers)  # type: ignore[arg-type]
        if self.steps:
            backend.execute(self._address)

    def _run_checked(
        self, checked: CheckedRun, slots: Sequence[Storage], addresses: list[int],
        numbers: Sequence[int | float],
    ) -> None:  # fmt: skip
        allocator = backend.allocator
        assert isinstance(allocator, DebugAllocator)
        unknown = [0] * len(checked.intervals)
        self._pack(self._table, 0, *addresses, *unknown, *numbers)  # type: ignore[arg-type]
        outside = [block for s in self.external if (block := slots[s].block) is not None]
        checked.run(allocator, backend.execute, outside)

    # -- building ------------------------------------------------------------------------------

    def _assemble(
        self, kinds: Sequence[type], intervals: Sequence[Interval], offsets: dict[int, int]
    ) -> None:
        """Argument blocks, relocations and the executor's records, in the executor's layout."""
        # Where each slot and workspace is found: an entry of the table and an offset from there.
        places = {slot: (k, 0) for k, slot in enumerate(self.external)}
        arena = len(self.external)
        if config.debug_alloc:
            places |= {each.name: (arena + k, 0) for k, each in enumerate(intervals)}
            first_number = arena + len(intervals)
        else:
            places |= {name: (arena, offset) for name, offset in offsets.items()}
            first_number = arena + (1 if self.arena_bytes else 0)
        natives = [(k, native) for k, step in enumerate(self.steps) for native in step.native]
        natives = [(k, native) for k, native in natives if native.tasks]
        epilogues = [native.epilogue for _, native in natives if native.epilogue is not None]
        blocks = [*(native for _, native in natives), *epilogues]
        functions = _compile(blocks)
        # The code stays in memory for as long as this is held.
        self._code = tuple(functions.values())

        self._table = np.zeros(first_number + len(kinds) + 1, np.int64)
        codes = "".join("d" if kind is float else "q" for kind in kinds)
        self._pack = Struct(f"{first_number}q{codes}").pack_into
        self._constants = [_aligned_copy(step.constants) for step in self.steps]
        words = np.zeros(sum(len(native.words) for native in blocks) + 1, np.int64)
        base = words.ctypes.data
        relocations: list[tuple[int, int, int]] = []
        records: list[tuple[int, int, int, int]] = []
        at = 0

        def place(k: int, native: NativeCall) -> int:
            """Lays out a call's words; returns their address."""
            nonlocal at
            parts: dict[str, int] = {}
            if native.epilogue is not None:
                parts[EPILOGUE] = functions[native.epilogue.module_key][native.epilogue.function]
                parts[EPILOGUE_ARGUMENTS] = place(k, native.epilogue)
            start = base + 8 * at
            for word in native.words:
                match word:
                    case Address(slot, offset):
                        entry, addend = places[slot]
                        relocations.append((base + 8 * at, entry, addend + offset))
                    case Scratch(offset):
                        entry, addend = places[_workspace(k)]
                        relocations.append((base + 8 * at, entry, addend + offset))
                    case Number(index):
                        relocations.append((base + 8 * at, first_number + index, 0))
                    case Constant(offset):
                        words[at] = self._constants[k].ctypes.data + offset
                    case EpiloguePart(name):
                        words[at] = parts[name]
                    case float():
                        words[at : at + 1].view(np.float64)[0] = word
                    case _:
                        words[at] = word
                at += 1
            return start

        for k, native in natives:
            function = functions[native.module_key][native.function]
            records.append((function, place(k, native), native.tasks, native.grain))
        self._words = words
        self._relocations = np.array(relocations or [(0, 0, 0)], np.int64)
        self._records = np.array(records or [(0, 0, 0, 0)], np.int64)
        self._header = self._block(len(relocations), 0, len(records))
        self._address = self._header.ctypes.data
        self._checked: CheckedRun | None = None
        if config.debug_alloc:
            positions = {each.name: places[each.name][0] for each in intervals}
            alone = self._steps_alone([k for k, _ in natives], len(relocations))
            self._checked = CheckedRun(self.steps, alone, intervals, positions, self._table)

    def _block(self, relocations: int, record: int, records: int) -> np.ndarray:
        """The executor's block (`interface.PlanWord`) for a range of records."""
        return np.array(
            [
                relocations, self._relocations.ctypes.data,
                records, self._records[record:].ctypes.data,
                self._table.ctypes.data, backend.pool_address,
            ],
            np.int64,
        )  # fmt: skip

    def _steps_alone(self, step_of_record: Sequence[int], relocations: int) -> list[NativeStep]:
        """Each step as a plan of its own; all write every address anew."""
        counts = [step_of_record.count(k) for k in range(len(self.steps))]
        return [
            NativeStep(self._block(relocations, sum(counts[:k]), n)) for k, n in enumerate(counts)
        ]

    def _print_debug(self) -> None:
        if "plan" in config.debug:
            print(self, file=sys.stderr)
        if "kernel" in config.debug:
            for step in self.steps:
                for kernel in step.kernels:
                    print(f"{step.name}: {kernel!r}", file=sys.stderr)

    def __repr__(self) -> str:
        lines = [f"{k:3}  {step!r}" for k, step in enumerate(self.steps)]
        counts = [
            _counted(len(self.steps), "step"),
            _counted(len(self.external), "storage"),
            f"arena of {self.arena_bytes} bytes for {_counted(len(self.arena_offsets), 'result')}",
        ]
        lines.append(", ".join(counts))
        return "\n".join(lines)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class CallByCall:
    """What stands in for a plan that could not be built: every call on its own.

    Raises RuntimeError naming the operator where even that fails.
    """

    def __init__(self, calls: Sequence[Call], error: Exception) -> None:
        self.calls = tuple(calls)
        self.error = error
        self._plans: list[Plan] = []

    def run(self, slots: Sequence[Storage], numbers: Sequence[int | float]) -> None:
        """As `Plan.run`."""
        if not self._plans:
            self._plans = [self._alone(call, len(slots)) for call in self.calls]
            if len(self.calls) > 1:
                self._warn()
        at = 0
        for call, plan in zip(self.calls, self._plans, strict=True):
            plan.run(slots, numbers[at : at + len(call.scalars)])
            at += len(call.scalars)

    def _alone(self, call: Call, slots: int) -> Plan:
        try:
            return Plan((call,), b"\1" * slots)
        except Exception as error:
            raise RuntimeError(
                f"flambeau could not make a kernel for {call.name}. This is a bug in flambeau; "
                f"please report it with this text:\n{call!r}\n{type(error).__name__}: {error}"
            ) from error

    def _warn(self) -> None:
        names = ", ".join(dict.fromkeys(call.name for call in self.calls))
        warnings.warn(
            f"flambeau could not run {names} together, so these operators run one by one, which is "
            "slower. This is a bug in flambeau; please report it with this text:\n"
            f"{type(self.error).__name__}: {self.error}",
            RuntimeWarning,
            stacklevel=2,
        )

    def __repr__(self) -> str:
        return "\n".join(["one by one", *(f"{k:3}  {c!r}" for k, c in enumerate(self.calls))])


class _Liveness:
    """Which calls must run, and which of their results need memory."""

    def __init__(self, calls: Sequence[Call], live: Sequence[int]) -> None:
        self.calls = calls
        self.live = live
        self.fresh = {
            view.slot: view.layout.nbytes
            for call in calls
            for view in call.writes[len(call.writes) - len(call.outputs) :]
            if call.outputs
        }
        needed = {slot for slot, alive in enumerate(live) if alive}
        self.wanted = [False] * len(calls)
        for k in range(len(calls) - 1, -1, -1):
            call = calls[k]
            if any(view.slot in needed for view in call.writes):
                self.wanted[k] = True
                needed.update(view.slot for view in call.reads)
                needed.update(view.slot for view in call.writes)
        self.empty_results = {
            view.slot
            for k, call in enumerate(calls)
            if self.wanted[k]
            for view in call.writes
            if live[view.slot]
        }

    def stored(self, groups: Sequence[Group]) -> frozenset[int]:
        """Slots that some group must write to memory: seen outside, or by another group."""
        groups_of: dict[int, set[int]] = {}
        in_library: set[int] = set()
        for g, group in enumerate(groups):
            for part in group.parts():
                replaced = part.writes if part.stands_in is not None else ()
                for view in (*part.reads, *part.writes):
                    groups_of.setdefault(view.slot, set()).add(g)
                    if (part.library and view not in replaced) or view.indexed:
                        in_library.add(view.slot)
        return frozenset(
            slot
            for slot, where in groups_of.items()
            if slot >= 0 and (self.live[slot] or len(where) > 1 or slot in in_library)
        )


def _number_starts(calls: Sequence[Call]) -> list[int]:
    starts = []
    total = 0
    for call in calls:
        starts.append(total)
        total += len(call.scalars)
    return starts


def _workspace(step: int) -> int:
    """What a step's workspace is called among the slots: a negative number."""
    return -1 - step


def _intervals(steps: Sequence[Step], arena_slots: dict[int, int]) -> list[Interval]:
    """What the arena must hold: dead results by slot, and workspaces."""
    life: dict[int, tuple[int, int]] = {}
    for k, step in enumerate(steps):
        for slot in step.reads | step.writes:
            first, _ = life.get(slot, (k, k))
            life[slot] = (first, k)
    results = [
        Interval(slot, nbytes, *life[slot]) for slot, nbytes in arena_slots.items() if slot in life
    ]
    workspaces = [
        Interval(_workspace(k), step.workspace, k, k)
        for k, step in enumerate(steps)
        if step.workspace
    ]
    return results + workspaces


def _aligned_copy(constants: bytes) -> np.ndarray:
    """The bytes at an address that is a multiple of 64."""
    buffer = np.zeros(len(constants) + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    aligned = buffer[start : start + max(len(constants), 1)]
    aligned[: len(constants)] = np.frombuffer(constants, np.uint8)
    return aligned


def _compile(natives: Sequence[NativeCall]) -> dict[str, Functions]:
    """The functions of each module; distinct modules compile in parallel."""
    modules = {
        native.module_key: Module(native.module_key, native.source, native.functions)
        for native in natives
    }
    return dict(zip(modules, compile_many(modules.values()), strict=True))
