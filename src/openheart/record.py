"""Record a run: every operator call that PyTorch makes, as it makes it, without changing a number.

`Recorder` sits in PyTorch's dispatcher, writes down and does nothing else; `openheart.recording` makes sense
of it later.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from openheart.recording import Recording, arrangements, assignments, forwards, seat
from openheart.recording.afterwards import settle
from openheart.recording.arrangements import STUB
from openheart.recording.assignments import watch
from openheart.recording.flight import Flight, check_steps
from openheart.recording.forwards import watch_forwards
from openheart.recording.keeping import check_keep
from openheart.recording.log import ENTER, EXIT, POKED, STEP, STEPPED, Log, is_plain, stale_gradients
from openheart.recording.plans import PLANS, Plan, is_composite, plan_of, written_tensors
from openheart.recording.rebinding import watch_memory
from openheart.recording.seat import KEY, SOLE, hidden, switch
from openheart.recording.sharing import Shared
from openheart.recording.temporaries import Temporaries
from openheart.recording.thrift import Again, Thrift
from openheart.spelling import spelled

__all__ = ["Recorder", "record", "recording"]

_UNSEEN: Any = object()
_numbers = itertools.count()
_current_node = torch._C._current_autograd_node
_sequence = torch._C._autograd._get_sequence_nr
_is_on = torch._C._dispatch_tls_is_dispatch_key_included
_is_excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
_PYTHON = torch._C.DispatchKey.Python
_frame = sys._getframe
# Whether this is read by PyTorch's compiler rather than run: no more than what would have run is to be read.
is_traced = torch.compiler.is_dynamo_compiling


class _Inside(dict[str, bool]):
    """Whether a source file is PyTorch's or this one: the lines that a reader does not want to be shown."""

    def __missing__(self, filename: str) -> bool:
        inside = filename.startswith((_TORCH, "<frozen")) or filename in _OWN
        self[filename] = inside
        return inside


_TORCH = os.path.dirname(torch.__file__) + os.sep
_OWN = (__file__, seat.__file__, arrangements.__file__, assignments.__file__, forwards.__file__)
_inside = _Inside()


class Recorder:
    """Who sits in PyTorch's dispatcher and writes down; `log` is what it wrote."""

    def __init__(
        self,
        model: torch.nn.Module | None = None,
        last: int | None = None,
        every: int | None = None,
        *,
        computes: bool = False,
    ) -> None:
        """`computes`: what can be computed again need not be held; who reads the log has to do so."""
        self.ended = False
        self.task = False
        self.number = next(_numbers)
        self.log = Log(has_model=model is not None)
        self.model = model
        self.output: Any = None
        self.paths: dict[int, str] = {}
        self.running: list[torch.nn.Module] = []  # the modules that are being called, the innermost last
        self._calls: list[list[Any]] = []  # their frames, and the places outside of PyTorch
        self._release: Callable[[], None] = _nothing
        self.flight = None if last is None and every is None else Flight(self.log, last, every)
        self._add = self.log.entries.append if self.flight is None else self.flight.add
        self._blank: set[int] = set()
        self._met: set[int] = set()  # objects that cannot be, or were asked whether they are, shared memory
        self.shared = Shared()
        self.sharing = self.shared.bases
        self._thrift = Thrift()
        self._temporaries = Temporaries() if computes else None
        self._states: dict[int, int] = {}
        self._lazy = False
        self.left_out = 0  # calls that were hidden
        self.others: set[Recorder] = set()  # who heard calls that this one heard too, and has not ended
        self._crossed = (
            0  # recordings that began inside of this one and ended outside, or the other way round
        )

    def hear(
        self, op: Any, args: Any, kwargs: Any, result: Any, kept: tuple[Any, Any], blank: bool, frame: Any
    ) -> None:
        """Writes down a call that has run; `kept` is what `prepare` gave before it ran."""
        if blank:
            self._blank.add(result.untyped_storage()._cdata if is_plain(result) else 0)
        if frame is not None and frame.f_code is STUB:
            frame = frame.f_back
        caller = None if frame is None else frame.f_code  # autograd's own threads have no Python below
        code, instruction = self._place(frame)
        undos, aliases = kept
        if self._thrift.running and self._temporaries is not None:
            self._temporaries.hear(op, args, kwargs, result, undos)
        node: Any = _current_node()
        if node is None:  # what autograd hands back was met before
            met = self._met
            for item in args:
                if id(item) not in met:
                    met.add(id(item))
                    kind = type(item)
                    if kind is not int and kind is not float and kind is not bool:
                        self.shared.meet(item)
            met.add(id(result))
        if undos is not None and self.sharing:
            self.shared.renew(args)
        self._add(
            (
                op,
                args,
                kwargs,
                result,
                undos,
                aliases,
                _sequence(),
                node,
                caller,
                code,
                instruction,
            )
        )

    def _place(self, frame: Any) -> tuple[Any, int]:
        """The nearest code outside of PyTorch, and its instruction.

        Below the call of a module it is the same for all that runs in there, so it is looked for once.
        """
        calls = list(self._calls)  # another thread may call modules too
        depth = len(calls)
        passed = depth
        place: tuple[Any, int] = _NOWHERE
        while frame is not None:
            code = frame.f_code
            if code is _CALL_MODULE and passed and frame is calls[passed - 1][0]:
                passed -= 1
                known = calls[passed][1]
                if known is not None:
                    place = known
                    break
            elif not _inside[code.co_filename]:
                place = code, frame.f_lasti
                break
            frame = frame.f_back
        for number in range(passed, depth):
            calls[number][1] = place
        return place

    def look(self, args: tuple[Any, ...]) -> None:
        """Writes down what somebody else has written to the memory that a call is about to read."""
        for base, before in self.shared.written(args):
            self._add((POKED, base, before))

    def prepare(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Copies what is about to be overwritten, and keeps the geometry of what is about to be reshaped."""
        aliases = undos = None
        if plan.reshapes:
            tensors = (
                args[:1]
                if plan.only_reshapes
                else [tensor for _, _, tensor in written_tensors(plan, args, kwargs)]
            )
            aliases = [(tensor, _quietly(tensor.detach)) for tensor in tensors if is_plain(tensor)]
        if plan.writes:
            undos = [
                (name, position, tensor, self._copy(plan, args, tensor))
                for name, position, tensor in written_tensors(plan, args, kwargs)
            ]
            if self._thrift.running:
                self._thrift.note(plan.op, args, undos)
        return undos, aliases

    def _copy(self, plan: Plan, args: Any, tensor: torch.Tensor) -> torch.Tensor | Again | None:
        if not is_plain(tensor):
            return None
        if self._blank:
            storage = tensor.untyped_storage()
            if storage._cdata in self._blank:
                self._blank.discard(storage._cdata)
                if plan.overwrites and tensor.numel() * tensor.itemsize == storage.nbytes():
                    return None  # nobody ever wrote there, and now every element is
        if self._thrift.running:
            if self._temporaries is not None and self._temporaries.spares(plan.op, args, tensor):
                return None
            if (again := self._thrift.take(tensor)) is not None:
                return again
        return _quietly(tensor.clone)

    # Marks --------------------------------------------------------------------------------------------------

    def call_module(
        self, path: str, run: Callable[..., Any], module: torch.nn.Module, args: Any, kwargs: Any
    ) -> Any:
        """Runs a module's call and marks where it begins and ends."""
        self._add((ENTER, path, args, kwargs))
        self.running.append(module)
        self._calls.append([_frame(), None])
        returned = False
        result = None
        try:
            result = run(module, *args, **kwargs)
            returned = True
        finally:
            self.running.pop()
            self._calls.pop()
            self._add((EXIT, path, result, returned))
        if not path:
            self.output = result
        return result

    def left_alone(self) -> None:
        """Hears that a compiled region runs as it is written, because of the recording."""
        self.log.notices["recording.notice.compiled"] = {}

    def made(self, tensors: Any) -> bool:
        """Whether one of these tensors is what a recorded call or module returned."""
        wanted = {id(tensor) for tensor in tensors}
        for entry in reversed(self.log.entries):
            result = entry[3] if len(entry) > 5 else None
            for item in result if isinstance(result, (tuple, list)) else (result,):
                if id(item) in wanted:
                    return True
        return False

    def optimizer_step(self, optimizer: Any) -> None:
        """Marks the beginning of an optimizer's step, and what it is about to work with."""
        state = optimizer.state
        groups = [
            (
                {name: option for name, option in group.items() if name != "params"},
                [(item, item.grad, dict(state.get(item) or ())) for item in group["params"]],
            )
            for group in optimizer.param_groups
        ]
        self._add((STEP, optimizer, groups, _sequence()))
        self._thrift.begin()

    def optimizer_stepped(self, optimizer: Any) -> None:
        """Marks the end of an optimizer's step, and whose state each of its tensors is."""
        self._thrift.end()
        if not self._thrift.running and self._temporaries is not None:
            self._temporaries.end()
        states = []
        if self._states.get(id(optimizer)) != len(optimizer.state):
            self._states[id(optimizer)] = len(optimizer.state)
            for parameter, state in optimizer.state.items():
                if isinstance(state, dict):
                    states += [(parameter, name, item) for name, item in state.items() if _is_tensor(item)]
        self._add((STEPPED, optimizer, states))

    # Begin and end ------------------------------------------------------------------------------------------

    def __enter__(self) -> Recorder:
        if self.model is not None:
            named: list[tuple[str, str, torch.Tensor]] = []
            _walk(self.model, "", self.paths, named, ())
            self.log.named = [item for item in named if is_plain(item[2])]
            self._lazy = len(named) > len(self.log.named)
            with seat.unseen():
                for _, _, tensor in self.log.named:
                    self._met.add(id(tensor))
                    if not tensor.untyped_storage().resizable():
                        self.shared.watch(tensor)
                self.log.stale = stale_gradients(tensor for _, _, tensor in self.log.named)
        self.log.sequence = _sequence() - 1
        if self.flight is not None:
            self.flight.begin()
        _install()
        if self.model is not None:
            self._release = watch_forwards(self.model.modules(), _is_called, _directly)
        try:
            seat.take(self)
        except BaseException:
            self._release()
            _uninstall()
            raise
        return self

    def __exit__(self, *_error: Any) -> None:
        self._part()
        seat.leave(self)
        self._release()
        _uninstall()
        self.log.kept += self.sharing.values()
        if self._temporaries is not None:
            self._temporaries.end()
            self.log.computed = self._temporaries.known
        if self.shared.unwatched:
            self.log.notices["recording.notice.shared"] = {}
        if self._crossed:
            self.log.notices["recording.notice.interleaved"] = {"count": self._crossed}
        if self.left_out:
            self.log.notices["recording.notice.left_out"] = {"count": self.left_out}
        if self.flight is not None:
            self.flight.end()
        if self.model is not None and self._lazy:
            _walk(
                self.model, "", {}, self.log.named_later, ()
            )  # a lazy module has made its parameters by now

    def _part(self) -> None:
        """Finds who began after this one and goes on: each may hold calls of the other's."""
        here, others = _heard(), self.others - {self}
        self.others.clear()
        for other in others:
            other.others.discard(self)
            if other.number > self.number:
                self._crossed += 1
                other._crossed += other in here  # a task's recording holds what the task does, and no more


_NOWHERE = (None, 0)
_CALL_MODULE = Recorder.call_module.__code__


def _nothing() -> None:
    """Ends nothing."""


def _is_tensor(item: Any) -> bool:
    return isinstance(item, torch.Tensor)


def _quietly(make: Callable[[], torch.Tensor]) -> torch.Tensor | None:
    """`make()` seen by nobody; None where this kind of tensor cannot do it."""
    try:
        with seat.unseen():
            return make()
    except (RuntimeError, NotImplementedError, TypeError):
        return None


# What runs in an operator's place ---------------------------------------------------------------------------


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Runs an operator as it would have run, and has whoever records here write it down."""
    plan = PLANS.get(id(op), _UNSEEN)
    if plan is _UNSEEN:
        plan = plan_of(op)
    if plan is not None and plan.composite and is_composite(plan, args, kwargs):
        # Autograd takes such operators apart before they come here; in inference mode there is no autograd.
        # Its parts come here again: this is the very kernel that would have run.
        return op._op_dk(_COMPOSITE, *args, **kwargs)
    switch(KEY, False)
    try:
        if _is_excluded(_PYTHON):
            if plan is None or not plan.blank:
                for recorder in _heard():
                    recorder.left_out += 1
            return op(*args, **kwargs)
        heard = SOLE[0]
        if heard is None:
            return _run_for_several(op, plan, args, kwargs)
        if heard.sharing:
            heard.look(args)
        kept = _NOTHING if plan is None else heard.prepare(plan, args, kwargs)
        result = op(*args, **kwargs)
        heard.hear(op, args, kwargs, result, kept, plan is not None and plan.blank, _frame().f_back)
        return result
    finally:
        switch(KEY, True)


def _run_for_several(op: Any, plan: Plan | None, args: Any, kwargs: Any) -> Any:
    heard = _heard()
    for recorder in heard:
        recorder.look(args)
        if len(heard) > 1:
            recorder.others.update(heard)
    kept = [_NOTHING if plan is None else recorder.prepare(plan, args, kwargs) for recorder in heard]
    result = op(*args, **kwargs)
    run = _frame().f_back
    frame = None if run is None else run.f_back
    for recorder, parts in zip(heard, kept, strict=True):
        recorder.hear(op, args, kwargs, result, parts, plan is not None and plan.blank, frame)
    return result


_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_NOTHING = (None, None)
seat.taken_by(_run)


def _walk(
    module: torch.nn.Module,
    path: str,
    paths: dict[int, str],
    named: list[tuple[str, str, torch.Tensor]],
    above: tuple[torch.nn.Module, ...],
) -> None:
    """Notes the path of each module, and every parameter and buffer with each of its names."""
    paths.setdefault(id(module), spelled(path))
    stem = f"{path}." if path else ""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            named.append(("parameter", spelled(stem + name), parameter))
    for name, buffer in module._buffers.items():
        if buffer is not None:
            named.append(("buffer", spelled(stem + name), buffer))
    for name, child in module._modules.items():
        if child is not None and child is not module and child not in above:
            _walk(child, stem + name, paths, named, (*above, module))


# The hooks are PyTorch-wide, so they are in place only while at least one recording runs, and each asks which
# recorders are on in its own thread. Module calls are wrapped rather than hooked: PyTorch's global forward
# hooks are not told of keyword arguments, and they send every module call through a slow path that costs more
# than a small module. `_call_impl` is wrapped and not `__call__`, which Python copies into every one of
# hundreds of subclasses.
_lock = threading.Lock()
_running = 0
_handles: list[Any] = []


def _heard() -> list[Recorder]:
    return [sitting for sitting in seat.recorders() if isinstance(sitting, Recorder)]


def _install() -> None:
    global _running
    with _lock:
        _running += 1
        if _running > 1:
            return
        original: Callable[..., Any] = torch.nn.Module._call_impl

        def call(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            if is_traced() or not _is_on(KEY) or hidden():
                return original(module, *args, **kwargs)
            recorder = SOLE[0]
            if recorder is not None:  # nearly always
                path = recorder.paths.get(id(module))
                if path is None:
                    return original(module, *args, **kwargs)
                return recorder.call_module(path, original, module, args, kwargs)
            run = original
            for recorder in _heard():
                path = recorder.paths.get(id(module))
                if path is not None:
                    run = _through(recorder, path, run)
            return run(module, *args, **kwargs)

        torch.nn.Module._call_impl = call  # type: ignore[assignment]

        def restore() -> None:
            if vars(torch.nn.Module)["_call_impl"] is call:
                torch.nn.Module._call_impl = original  # type: ignore[method-assign]

        _handles[:] = [
            restore,
            watch(_note),
            watch_memory(_note, _share),
            register_optimizer_step_pre_hook(_before_step).remove,
            register_optimizer_step_post_hook(_after_step).remove,
        ]


def _before_step(optimizer: Any, _args: Any, _kwargs: Any) -> None:
    for recorder in _heard():
        recorder.optimizer_step(optimizer)


def _after_step(optimizer: Any, _args: Any, _kwargs: Any) -> None:
    for recorder in _heard():
        recorder.optimizer_stepped(optimizer)


def _note(entry: tuple[Any, ...]) -> None:
    for recorder in _heard():
        recorder._add(entry)


def _share(tensor: torch.Tensor) -> None:
    for recorder in _heard():
        recorder.shared.watch(tensor)


def _is_called(module: torch.nn.Module) -> bool:
    """Whether the one who records has just heard that this module is called: nearly always."""
    recorder = SOLE[0]
    return recorder is not None and bool(recorder.running) and recorder.running[-1] is module


def _directly(run: Callable[..., Any], module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
    """Runs a `forward`: of a module that is being called, or else as the call that nobody made."""
    if is_traced() or not _is_on(KEY) or hidden():
        return run(module, *args, **kwargs)
    for recorder in _heard():
        path = recorder.paths.get(id(module))
        if path is not None and not (recorder.running and recorder.running[-1] is module):
            run = _through(recorder, path, run)
    return run(module, *args, **kwargs)


def _through(recorder: Recorder, path: str, run: Callable[..., Any]) -> Callable[..., Any]:
    def through(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        return recorder.call_module(path, run, module, args, kwargs)

    return through


def _uninstall() -> None:
    global _running
    with _lock:
        _running -= 1
        if _running == 0:
            for remove in _handles:
                remove()
            _handles.clear()


def _never_compile() -> None:
    """Tells PyTorch's compiler, should it be loaded, to leave what runs inside of a recorded call alone."""
    frames = torch._C._dynamo.eval_frame
    action = frames._FrameAction
    alone = frames._FrameExecStrategy(action.SKIP, action.SKIP)
    thin = frames._FrameExecStrategy(action.SKIP, action.DEFAULT)  # what it calls is somebody else's
    for code in (STUB, _run.__code__, _run_for_several.__code__, _heard.__code__, Recorder.hear.__code__):
        frames.set_code_exec_strategy(code, alone)
    for function in (Recorder.call_module, _install, _through, _is_called, _directly):
        for code in (function.__code__, *filter(inspect.iscode, function.__code__.co_consts)):
            frames.set_code_exec_strategy(code, thin)


_never_compile()


# The two verbs ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def recording(
    model: torch.nn.Module | None = None,
    keep: str = "all",
    *,
    last: int | None = None,
    every: int | None = None,
) -> Iterator[Recording]:
    """Records everything that runs inside: forward, loss, backward, optimizer steps.

    A long run is recorded by a flight recorder: with `last=3` only the last three training steps are held,
    with `every=100` steps 0, 100, 200, …, with both the last three of those. Memory is bounded by these steps
    and the one that runs; the recording's `repr` says which steps it holds and in how many bytes. What the
    first of them found, weights and optimizer state among it, are leaves.

    A step begins with the first call after an update (of an optimizer, or by hand, from gradients) that calls
    a module, that autograd follows, or that belongs to a backward pass; gradients that are accumulated belong
    to one step. In a run that does not train, or evaluates in between under `no_grad`, each call of the
    model is a step. (Without a flight recorder only updates end a step.) Steps are numbered as they ran:
    `"@1997 loss"`; without a number a name means the first step that is held, `"loss"`.

    Of steps with others between them the later ones start from what they found: an edit of `"0.weight"` does
    not reach step 100 if steps 1 to 99 are not held.

    Args:
        model: the network whose modules and parameters give the names; None records plain tensor code.
        keep: what is kept once the block has ended. `"all"`; the path of a module: only the values that its
            calls read and made; or `"graph"`: leaves and random draws, all else is computed again on demand.
        last: how many training steps are held, the last ones.
        every: holds every step whose number is a multiple of this.

    Yields:
        The `Recording`, which can be read once the block has ended.

    Raises:
        InputError: `keep` names no module of the model; `last` or `every` is not a whole number from 1 on.

    >>> import torch, openheart as oh
    >>> net = torch.nn.Linear(2, 1)
    >>> with oh.recording(net) as rec:
    ...     net(torch.ones(1, 2)).sum().backward()
    >>> rec.value("weight.grad").shape
    (1, 2)
    >>> with oh.recording(net, last=2) as rec, torch.no_grad():
    ...     for number in range(100):
    ...         _ = net(torch.full((1, 2), float(number)))
    >>> rec.value("@99 input").data
    tensor([[99., 99.]])
    """
    check_keep(keep, model)
    check_steps(last, every)
    recorder = Recorder(model, last, every, computes=True)
    result = Recording(model=model, keep=keep)
    try:
        with recorder:
            yield result
    finally:
        settle(recorder.log)
        result._finish_later(recorder.log, recorder.output)


def record(model: torch.nn.Module, *args: Any, keep: str = "all", **kwargs: Any) -> Recording:
    """Records one forward pass, `model(*args, **kwargs)`; `.output` is what the model returned.

    >>> import torch, openheart as oh
    >>> rec = oh.record(torch.nn.Linear(2, 1), torch.ones(1, 2))
    >>> rec.name(rec.value("output"))
    '.out'
    """
    with recording(model, keep=keep) as result:
        model(*args, **kwargs)
    return result
