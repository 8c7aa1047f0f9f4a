"""Compiled functions: observed, captured, and replayed where nothing that they read has changed.

The first call of a kind is *observed* (which code runs, what it names), the second is *captured*:
before it everything that the code can read is explored and guarded, afterwards the guards must
still hold, or the function changes state and is not replayed.  Both run the function as it is, so
their results are those of eager execution; so are the results of every call that cannot be
replayed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from sys import getprofile
from types import MethodType
from typing import Any

from flambeau.capture.errors import Unsupported
from flambeau.capture.exploration import Explorer, Wrapper
from flambeau.capture.guards import Guards
from flambeau.capture.observation import Observation
from flambeau.capture.outputs import Outputs
from flambeau.capture.recorder import Recorder
from flambeau.capture.recording import Recording
from flambeau.capture.signature import Plain, Signature
from flambeau.capture.stance import stance
from flambeau.core.config import config
from flambeau.engine.segment import NotRepeatable
from flambeau.engine.tape import thread
from flambeau.engine.watch import watch
from flambeau.tensor import Tensor

# Signatures that one function is captured for; further ones are recorded as usual.
MAX_SIGNATURES = 64
# Captures per signature: they differ in what was pending, or in variables that changed.
MAX_CAPTURES = 8
# Attempts per signature before the function is recorded for good: the first calls of many programs
# make state that later ones only use.
MAX_ATTEMPTS = 4
# With fewer calls per flush there is nothing to gain.
MIN_WINDOW = 32

_GRADIENT_NAMES = frozenset({"grad", "backward", "zero_grad", "_grad"})
_MAX_PLACES = 64
_NOTHING = object()


class Captured:
    """One captured run and what it depends on besides the signature."""

    __slots__ = ("bound", "guards", "objects", "outputs", "recording")

    def __init__(
        self,
        guards: Guards,
        recording: Recording,
        outputs: Outputs,
        bound: Sequence[tuple[int, Tensor]],
        objects: dict[int, Any],
    ) -> None:
        # Signatures name objects by identity, so these must live as long as the capture does.
        self.objects = objects
        self.guards = guards
        self.recording = recording
        self.outputs = outputs
        # Inputs that are variables of the function as well.
        self.bound = tuple(bound)

    def holds(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the function would do the same again."""
        for number, tensor in self.bound:
            if inputs[number] is not tensor:
                return False
        return self.guards.hold() and self.recording.grads_hold(inputs)

    def replay(self, inputs: Sequence[Tensor]) -> Any:
        """The result, or `_NOTHING` where the tape or the inputs' memory do not fit."""
        environment = self.recording.replay(inputs)
        if environment is None:
            return _NOTHING
        return self.outputs.make(environment, inputs)


class Trial:
    """The attempts to capture one signature."""

    __slots__ = ("_places", "attempts", "captures", "follows_others", "observation")

    def __init__(self) -> None:
        self.observation: Observation | None = None
        self.attempts = 0
        self.captures = 0
        # Whether a capture may start where other calls are pending.
        self.follows_others = True
        self._places: dict[Any, int] = {}

    def returns_to(self, place: Any) -> bool:
        """Whether the function is called again and again with the same calls pending.

        Then a capture that starts there lets its operations run together with those.
        """
        if self.captures >= MAX_CAPTURES or place.parent is None or not self.follows_others:
            return False
        if len(self._places) >= _MAX_PLACES:
            self._places.clear()
        count = self._places[place] = self._places.get(place, 0) + 1
        return count >= 2


class CompiledFunction(Wrapper):
    """What ``torch.compile(function)`` gives; calling it is calling the function."""

    def __init__(self, function: Callable[..., Any], fullgraph: bool = False) -> None:
        self.function = function
        self.fullgraph = fullgraph
        # Why the function is recorded for good, and why the last attempt failed.
        self.reason: str | None = None
        self.last_failure: str | None = None
        self.replays = 0
        self.reset()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a function in a class: a method."""
        return self if instance is None else MethodType(self, instance)

    def reset(self) -> None:
        """Forgets every capture."""
        self.captured: dict[Any, list[Captured]] = {}
        self.trials: dict[Any, Trial] = {}
        self.gave_up = False
        # The last replay is looked at first.
        self.latest: tuple[Plain, Captured] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        latest = self.latest
        if latest is not None and watch.capture is None and getprofile() is None:
            plain, captured = latest
            usual = len(args) == plain.count and not kwargs and plain.matches(args)
            if usual and captured.holds(args):
                environment = captured.recording.replay(args)
                if environment is not None:
                    self.replays += 1
                    return captured.outputs.make(environment, args)
        return self._call(args, kwargs)

    def _call(self, args: Any, kwargs: Any) -> Any:
        """A call that differs from the last replay."""
        if self.gave_up or watch.capture is not None or getprofile() is not None:
            return self.function(*args, **kwargs)
        if stance.forced_eager or config.window < MIN_WINDOW:
            self.latest = None
            return self.function(*args, **kwargs)
        signature = Signature(args, kwargs)
        inputs = signature.inputs
        try:
            known = self.captured.get(signature.key)
        except TypeError:
            return self.function(*args, **kwargs)
        if known is not None:
            for captured in known:
                if captured.holds(inputs):
                    result = captured.replay(inputs)
                    if result is not _NOTHING:
                        self.replays += 1
                        plain = Plain.of(args, kwargs)
                        self.latest = None if plain is None else (plain, captured)
                        return result
        return self._learn(signature, args, kwargs)

    # -- learning -------------------------------------------------------------------------------

    def _learn(self, signature: Signature, args: Any, kwargs: Any) -> Any:
        trial = self.trials.get(signature.key)
        if trial is None:
            if len(self.trials) >= MAX_SIGNATURES:
                self._give_up("it is called with ever new shapes or values")
                return self.function(*args, **kwargs)
            trial = self.trials[signature.key] = Trial()
        if trial.observation is None:
            return self._observe(trial, signature, args, kwargs)
        result = _NOTHING
        if not trial.returns_to(thread.tape.cursor):
            # What is pending is run: most captures start from an empty tape.
            thread.tape.flush()
            result = self._replay_from_start(signature)
        if result is not _NOTHING:
            return result
        if trial.captures >= MAX_CAPTURES:
            return self.function(*args, **kwargs)
        return self._capture(signature, trial, args, kwargs)

    def _replay_from_start(self, signature: Signature) -> Any:
        inputs = signature.inputs
        for captured in self.captured.get(signature.key, ()):
            if captured.recording.starts_empty and captured.holds(inputs):
                result = captured.replay(inputs)
                if result is not _NOTHING:
                    self.replays += 1
                    return result
        return _NOTHING

    def _observe(self, trial: Trial, signature: Signature, args: Any, kwargs: Any) -> Any:
        observation = Observation()
        # It keeps host actions and optimizers out of what is observed.
        listener = Recorder(signature.inputs, ())
        listener.refusal = "it is only observed"
        result = listener.run(observation.run, self.function, *args, **kwargs)
        if observation.refusal is None:
            trial.observation = observation
        else:
            self._failed(trial, observation.refusal)
        return result

    def _capture(self, signature: Signature, trial: Trial, args: Any, kwargs: Any) -> Any:
        observation = trial.observation
        assert observation is not None
        before = observation.size()
        explorer = Explorer(observation)
        try:
            explorer.explore(
                [(self.function, "the function"), *((o, "an argument") for o in signature.objects)]
            )
        except NotRepeatable as reason:
            self._failed(trial, f"it {reason}")
            return self.function(*args, **kwargs)
        inputs = signature.inputs
        constants = {id(t): t for t in explorer.tensors}
        bound = [(k, t) for k, t in enumerate(inputs) if id(t) in constants]
        for _, tensor in bound:
            del constants[id(tensor)]
        with_grads = not observation.names.isdisjoint(_GRADIENT_NAMES)
        recorder = Recorder(inputs, list(constants.values()), with_grads)
        recorder.known_objects = set(explorer.objects)
        result = recorder.run(observation.run, self.function, *args, **kwargs)
        if observation.size() != before and observation.refusal is None:
            # Code ran that had not been seen: once more.
            trial.attempts += 1
            if trial.attempts >= MAX_ATTEMPTS:
                self._failed(trial, "it takes another way at every call")
            return result
        refusal = observation.refusal or recorder.refusal
        if refusal is None and not explorer.guards.hold():
            refusal = f"it changes {explorer.guards.first_change()}"
        if refusal is None and Signature(args, kwargs).key != signature.key:
            refusal = "it changes its arguments"
        if refusal is None:
            refusal = self._keep(signature, trial, explorer, recorder, bound, result)
        if refusal is not None:
            self._failed(trial, refusal)
        return result

    def _keep(
        self,
        signature: Signature,
        trial: Trial,
        explorer: Explorer,
        recorder: Recorder,
        bound: Sequence[tuple[int, Tensor]],
        result: Any,
    ) -> str | None:
        """Stores the capture; says why not where it cannot be repeated."""
        recording = recorder.finish()
        if recording is None:
            return recorder.refusal
        if not recording.calls:
            # Only views, or an optimizer's step: calling the function is the quickest.
            self.gave_up = True
            return None
        try:
            outputs = Outputs(recorder, explorer.objects, result)
        except NotRepeatable as reason:
            return f"it {reason}"
        recording.keep_only(outputs.positions)
        known = self.captured.setdefault(signature.key, [])
        known.insert(0, Captured(explorer.guards, recording, outputs, bound, explorer.objects))
        trial.captures += 1
        trial.attempts = 0
        trial.follows_others = not recording.acts
        return None

    def _failed(self, trial: Trial, reason: str) -> None:
        self.last_failure = reason
        trial.attempts += 1
        if self.fullgraph:
            raise Unsupported(f"flambeau.compile: fullgraph=True, but {reason}")
        if trial.attempts >= MAX_ATTEMPTS:
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """From now on every call is recorded; says why, once."""
        self.gave_up = True
        self.captured.clear()
        self.latest = None
        self.trials.clear()
        self.reason = reason
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        print(f"flambeau.compile: {name} falls back to recording: {reason}", file=sys.stderr)

    def __repr__(self) -> str:
        return f"<compiled {self.function!r}>"
