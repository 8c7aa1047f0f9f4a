"""The worker processes of one loader: starting, talking to them, noticing their death, ending."""

import contextlib
import os
import signal
import time
import warnings
from collections import deque
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pickle import PicklingError
from typing import Any

from flambeau.engine.flush import flush
from flambeau.utils.data.transport import Channel
from flambeau.utils.data.worker import Restart, Restarted, Task, WorkerPlan, worker_main

# How long a worker may take to end by itself, and then to obey a signal.
_PATIENCE_SECONDS = 5.0
# Tasks that may lie unread in a worker's socket.  Further ones wait here, so that sending never
# blocks: a loader and a worker that both wait to send would wait for ever.
_TASKS_IN_SOCKET = 64


class _Worker:
    """One worker process with our end of its channel."""

    __slots__ = ("channel", "outbox", "process", "unanswered")

    def __init__(self, process: BaseProcess, channel: Channel) -> None:
        self.process = process
        self.channel = channel
        self.outbox: deque[Task] = deque()
        self.unanswered = 0

    def submit(self, task: Task) -> None:
        self.outbox.append(task)
        self.send_waiting()

    def send_waiting(self) -> None:
        while self.outbox and self.unanswered < _TASKS_IN_SOCKET:
            # A dead worker is reported when its answer is asked for.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.channel.send(self.outbox[0])
            self.outbox.popleft()
            self.unanswered += 1

    def receive(self) -> Any:
        answer = self.channel.receive()
        self.unanswered -= 1
        self.send_waiting()
        return answer


class WorkerPool:
    """Workers that answer, each in the order it was asked, one answer per task."""

    def __init__(self, plan: WorkerPlan, context: Any) -> None:
        self.owner = os.getpid()
        self.workers: list[_Worker] = []
        # A forked worker would otherwise inherit a tape of work that is not its own.
        flush()
        try:
            for worker_id in range(plan.num_workers):
                self._start(plan, context, worker_id)
        except BaseException:
            self.close()
            raise

    def _start(self, plan: WorkerPlan, context: Any, worker_id: int) -> None:
        channel, theirs = Channel.pair()
        process = context.Process(target=worker_main, args=(plan, theirs, worker_id), daemon=True)
        try:
            process.start()
        except (TypeError, AttributeError, PicklingError):
            channel.close()
            warnings.warn(
                "Got pickle error when attempting to start a worker Process. This might be because "
                "the worker Process arguments are not picklable. Python 3.14+ changed the "
                "multiprocessing start method in non-Mac POSIX platforms to 'forkserver', which "
                "requires the worker Process arguments to be picklable. You can also try "
                "multiprocessing.set_start_method('fork').",
                stacklevel=6,
            )
            raise
        finally:
            theirs.close()
        self.workers.append(_Worker(process, channel))

    @property
    def pids(self) -> list[int | None]:
        return [worker.process.pid for worker in self.workers]

    def submit(self, worker_id: int, task: Task) -> None:
        """Ask a worker for a batch; its answer comes through `receive`."""
        self.workers[worker_id].submit(task)

    def receive(self, worker_ids: list[int], timeout: float) -> tuple[int, Any]:
        """The next answer of any of these workers, and whose it is; ``timeout`` 0 waits for ever.

        Raises RuntimeError when time is up or a worker (any of them) has died.
        """
        waiting = {self.workers[worker_id].channel: worker_id for worker_id in worker_ids}
        sentinels = [worker.process.sentinel for worker in self.workers]
        ready = wait([*waiting, *sentinels], timeout or None)
        if not ready:
            raise RuntimeError(f"DataLoader timed out after {timeout} seconds")
        for channel in ready:
            worker_id = waiting.get(channel) if isinstance(channel, Channel) else None
            if worker_id is None:
                continue
            try:
                return worker_id, self.workers[worker_id].receive()
            except EOFError:
                break
        raise self._death_report() from self._death_cause()

    def restart(self) -> None:
        """Begin a new epoch in every worker, dropping what is still on its way from the old one."""
        for worker in self.workers:
            worker.outbox.clear()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker.channel.send(Restart())
            worker.unanswered += 1
        for worker_id, worker in enumerate(self.workers):
            answer = None
            while not isinstance(answer, Restarted):
                _, answer = self.receive([worker_id], 0)
            worker.unanswered = 0

    def _dead(self) -> list[BaseProcess]:
        # The socket closes a moment before the process can be waited for.
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            dead = [worker.process for worker in self.workers if not worker.process.is_alive()]
            if dead or time.monotonic() > deadline:
                return dead
            time.sleep(0.005)

    def _death_report(self) -> RuntimeError:
        pids = ", ".join(str(process.pid) for process in self._dead())
        return RuntimeError(f"DataLoader worker (pid(s) {pids}) exited unexpectedly")

    def _death_cause(self) -> RuntimeError | None:
        for process in self._dead():
            code = process.exitcode
            if code is None:
                continue
            if code < 0:
                text = f"is killed by signal: {signal.strsignal(-code)}. "
            else:
                text = (
                    f"exited unexpectedly with exit code {code}. Details are lost due to "
                    "multiprocessing. Rerunning with num_workers=0 may give better error trace."
                )
            return RuntimeError(f"DataLoader worker (pid {process.pid}) {text}")
        return None

    def close(self) -> None:
        """End all workers and wait for them; a second call, or one in a forked child, does nothing.

        Closing the channels tells a worker to stop: it ends at its next receive or send.  One that
        is stuck in the user's code is terminated, then killed.
        """
        if os.getpid() != self.owner:
            return
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.channel.close()
        for stop in (None, BaseProcess.terminate, BaseProcess.kill):
            deadline = time.monotonic() + _PATIENCE_SECONDS
            for worker in workers:
                if stop is not None and worker.process.is_alive():
                    stop(worker.process)
            for worker in workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
            if not any(worker.process.is_alive() for worker in workers):
                break
        for worker in workers:
            with contextlib.suppress(ValueError):
                worker.process.close()
