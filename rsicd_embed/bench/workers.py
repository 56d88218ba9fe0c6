"""Workers: each holds an object, in a process of its own or in this one, and calls functions on it.

PyTorch, ONNX Runtime, OpenVINO and XLA each bring a pool of threads, an allocator, and sometimes
the same library in another version. In processes of their own each is as its users have it, one
that runs out of memory takes no other with it, and environment variables can be set for one alone.

It is not a matter of speed: with batches of ViT-B/32 on two processors, timed in the same rounds
alone and with all the others loaded in one process, no difference was seen beyond the noise;
threads that spin while they wait have stopped long before a sample of a second is over. Timing
happens inside the process, so that what goes through the pipe costs the figures nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from rsicd_embed.errors import BenchError, RsicdEmbedError, one_line
from rsicd_embed.files import Closing

T = TypeVar("T")
Owned = TypeVar("Owned", covariant=True)
R = TypeVar("R")
P = ParamSpec("P")

_PATIENCE_S = 5.0


class Worker(Protocol[Owned]):
    """Owns an object, on which functions can be called."""

    def call(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Returns `function(object, …)`."""
        ...

    def close(self) -> None:
        """Releases the object."""
        ...


class InlineWorker(Generic[T]):
    """In this process."""

    def __init__(self, name: str, make: Callable[[], T]) -> None:
        del name
        self._object = make()

    def call(
        self, function: Callable[Concatenate[T, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Returns `function(object, …)`."""
        return function(self._object, *args, **kwargs)

    def close(self) -> None:
        """Releases the object."""
        del self._object


class ProcessWorker(Closing, Generic[T]):
    """In a new process. `make`, functions, arguments and results must be picklable."""

    def __init__(
        self,
        name: str,
        make: Callable[[], T],
        *,
        without: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        """Starts the process and calls `make` in it, without the environment variables `without`.

        With `wait=False` it returns at once, so that several workers can start together; the first
        `call` then waits, and reports a failure of `make`.

        Raises:
            BenchError: `make` failed; the message begins with `name`.
        """
        self._name = name
        context = multiprocessing.get_context("spawn")  # fork and threads do not go together
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        with _unset(without):
            self._process.start()
        theirs.close()
        self._is_made = False
        if wait:
            try:
                self._wait()
            except BaseException:
                self.close()
                raise

    def call(
        self, function: Callable[Concatenate[T, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Returns `function(object, …)`, called in that process.

        Raises:
            BenchError: it failed there, or the process has ended.
        """
        self._wait()
        with suppress(BrokenPipeError):  # which the missing answer tells
            self._pipe.send((function, args, kwargs))
        answer: R = self._answer()
        return answer

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):
            self._pipe.close()
        self._process.join(_PATIENCE_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(_PATIENCE_S)

    def _wait(self) -> None:
        """Until it is made."""
        if not self._is_made:
            self._answer()
            self._is_made = True

    def _answer(self) -> Any:
        try:
            failure, answer = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join(_PATIENCE_S)
            raise BenchError(
                f"{self._name}: its process ended with status {self._process.exitcode}; "
                "with -9, the machine has run out of memory: take a smaller batch or model"
            ) from error
        if failure is not None:
            told, trace = failure
            failed = BenchError(f"{self._name}: {told}")
            failed.add_note(trace)
            raise failed
        return answer


@contextmanager
def _unset(names: Sequence[str]) -> Iterator[None]:
    removed = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)


def once(name: str, function: Callable[[], R]) -> R:
    """What `function` returns, from a process that is gone afterwards."""
    with ProcessWorker(name, _nothing) as worker:
        return worker.call(_call, function)


def _nothing() -> None:
    return None


def _call(_: None, function: Callable[[], R]) -> R:
    return function()


def _serve(pipe: Connection, make: Callable[[], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and closes the pipe
    os.dup2(2, 1)  # stdout is the parent's, for its result
    sys.stdout = sys.stderr
    # Several processes may share a GPU; JAX would take most of its memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone
        try:
            made = make()
        except Exception as error:
            pipe.send((_told(error), None))
            return
        pipe.send((None, None))
        while True:
            function, args, kwargs = pipe.recv()
            answer: tuple[Any, Any]
            try:
                answer = (None, function(made, *args, **kwargs))
            except Exception as error:
                answer = (_told(error), None)
            pipe.send(answer)


def _told(error: Exception) -> tuple[str, str]:
    """One line, and the traceback for who asks for it."""
    text = one_line(error)
    if not isinstance(error, RsicdEmbedError):
        text = f"{type(error).__name__}: {one_line(error, limit=300, empty='no message')}"
    return text, "".join(traceback.format_exception(error))
