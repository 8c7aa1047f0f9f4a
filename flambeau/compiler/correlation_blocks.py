"""One kernel that pads, correlates and arranges a block of images (or a strip of one) in one task.

What one thread has just written, another fetches slowly: with steps of their own, the correlation
of a padded source ran no faster on two cores than on one.  A block keeps its padded source, in a
region of its own, with the thread that reads it.
"""

from __future__ import annotations

import functools

from flambeau.compiler.builder import (
    ARGS,
    BEGIN,
    END,
    I64,
    KERNEL_PARAMETERS,
    PTR,
    Builder,
    Var,
)
from flambeau.compiler.gemm_micro import TileShape

BLOCKS = "correlate_blocks"


class BlockKernel:
    """Writes the kernel; ``parts`` are the kernels that a block calls, with their argument words.

    The pads are alternatives, chosen by the word ``pad_kind``.  The words of the parts come first,
    each as ``part.word``; a block calls a part for all its tasks, with a copy of the words in which
    the addresses are the block's.  Task t is strip ``t % strips`` of images ``t / strips``.
    """

    CONTROL_WORDS = (
        "pad_kind", "pad_tasks", "correlate_tasks", "arrange_tasks", "strips",
        "source_step", "region_step", "scattered_step", "out_step", "strip_out_step", "strip_rows",
    )  # fmt: skip

    def __init__(
        self,
        pads: dict[int, str],
        pad_words: tuple[str, ...],
        correlate: tuple[str, tuple[str, ...]],
        arrange: tuple[str, tuple[str, ...]],
    ) -> None:
        self.pads = pads
        self.correlate, correlate_words = correlate
        self.arrange, arrange_words = arrange
        self.parts = {"pad": pad_words, "correlate": correlate_words, "arrange": arrange_words}
        self.words = tuple(
            f"{part}.{word}" for part, words in self.parts.items() for word in words
        ) + tuple(self.CONTROL_WORDS)

    def function(self, tile: TileShape) -> tuple[str, Builder]:
        builder = Builder()
        copied = len(self.words) - len(self.CONTROL_WORDS)
        local = builder.emit(PTR, f"alloca [{copied} x i64], align 8")
        control = {
            word: builder.argument(ARGS, self.words.index(word)) for word in self.CONTROL_WORDS
        }

        def run_task(task: Var, _: list[Var]) -> None:
            for index in range(copied):
                word = builder.argument(ARGS, index)
                builder.store(word, builder.gep(I64, local, index), 8)
            self._move(builder, tile, local, control, task)
            self._call_parts(builder, local, control)

        builder.loop(BEGIN, END, 1, [], run_task)
        return builder.function(BLOCKS, KERNEL_PARAMETERS), builder

    def _move(
        self, builder: Builder, tile: TileShape, local: Var, control: dict[str, Var], task: Var
    ) -> None:
        """Turns the first block's addresses in the copied words into those of the task's block."""
        number = builder.div(task, control["strips"])
        strip = builder.sub(task, builder.mul(number, control["strips"]))

        def add(name: str, elements: Var, size: int) -> None:
            place = builder.gep(I64, local, self.words.index(name))
            moved = builder.add(builder.load(I64, place, 8), builder.mul(elements, size))
            builder.store(moved, place, 8)

        region = builder.mul(task, control["region_step"])
        scattered = builder.mul(task, control["scattered_step"])
        out = builder.mul(number, control["out_step"])
        strip_out = builder.mul(strip, control["strip_out_step"])
        add("pad.source", builder.mul(number, control["source_step"]), tile.size)
        add("pad.padded", region, tile.size)
        add("pad.top", builder.mul(strip, control["strip_rows"]), -1)
        add("correlate.source", region, tile.size)
        # The correlation writes to the output itself, or (then the step is 0) into its region.
        arranges = builder.compare("ne", control["arrange_tasks"], 0)
        direct = builder.add(out, strip_out)
        add("correlate.out", builder.select(arranges, scattered, direct), tile.size)
        add("arrange.source", scattered, tile.size)
        add("arrange.target", out, tile.size)

    def _call_parts(self, builder: Builder, local: Var, control: dict[str, Var]) -> None:
        def call(name: str, part: str) -> None:
            words = builder.gep(I64, local, self._first_word(part))
            tasks = control[f"{part}_tasks"]
            builder.do(f"call void @{name}({words}, i64 0, {tasks})")

        builder.switch(
            control["pad_kind"],
            {kind: functools.partial(call, name, "pad") for kind, name in self.pads.items()},
        )
        call(self.correlate, "correlate")
        call(self.arrange, "arrange")

    def _first_word(self, part: str) -> int:
        return next(i for i, word in enumerate(self.words) if word.startswith(f"{part}."))
