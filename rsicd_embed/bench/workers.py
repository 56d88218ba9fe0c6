"""Workers own an object, in a process of their own or in this one, and call functions on it.

PyTorch, ONNX Runtime, OpenVINO and XLA each bring a thread pool, an allocator, and sometimes the
same library in another version. In separate processes each behaves as it does for its users, an
out-of-memory failure affects only one of them, and environment variables can be set for each.

Isolation does not change the timings: with batches of ViT-B/32 on two CPUs, measured in the same
rounds alone and with all libraries loaded in one process, no difference beyond noise was seen.
Timing happens inside the worker, so the pipe costs nothing.
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

_TIMEOUT_S = 5.0


class Worker(Protocol[Owned]):
    """Owns an object on which functions can be called."""

    def call(
        self, function: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Returns `function(object, …)`."""
        ...

    def close(self) -> None:
        """Releases the object."""
        ...


class InlineWorker(Generic[T]):
    """A worker in this process."""

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
    """A worker in a new process; `make`, functions, arguments and results must be picklable."""

    def __init__(
        self,
        name: str,
        make: Callable[[], T],
        *,
        without: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        """Starts the process, which calls `make`.

        Args:
            name: prefix of error messages.
            make: creates the object.
            without: environment variables to remove in the process.
            wait: wait for `make`. Without, several workers can start concurrently; the first `call`
                waits and reports a failure of `make`.

        Raises:
            BenchError: `make` failed.
        """
        self._name = name
        context = multiprocessing.get_context("spawn")  # forking a threaded process is unsafe
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        with _unset(without):
            self._process.start()
        theirs.close()
        self._ready = False
        if wait:
            try:
                self._wait()
            except BaseException:
                self.close()
                raise

    def call(
        self, function: Callable[Concatenate[T, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Returns `function(object, …)`, called in the process.

        Raises:
            BenchError: the function failed, or the process has ended.
        """
        self._wait()
        with suppress(BrokenPipeError):  # _receive reports it
            self._pipe.send((function, args, kwargs))
        result: R = self._receive()
        return result

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):
            self._pipe.close()
        self._process.join(_TIMEOUT_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(_TIMEOUT_S)

    def _wait(self) -> None:
        if not self._ready:
            self._receive()
            self._ready = True

    def _receive(self) -> Any:
        try:
            failure, result = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join(_TIMEOUT_S)
            raise BenchError(
                f"{self._name}: its process ended with status {self._process.exitcode}; "
                "if that is -9, the machine is out of memory: use a smaller batch or model"
            ) from error
        if failure is not None:
            message, trace = failure
            failed = BenchError(f"{self._name}: {message}")
            failed.add_note(trace)
            raise failed
        return result


@contextmanager
def _unset(names: Sequence[str]) -> Iterator[None]:
    removed = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)


def once(name: str, function: Callable[[], R]) -> R:
    """Calls a function in a process that ends afterwards; returns its result."""
    with ProcessWorker(name, _nothing) as worker:
        return worker.call(_call, function)


def _nothing() -> None:
    return None


def _call(_: None, function: Callable[[], R]) -> R:
    return function()


def _serve(pipe: Connection, make: Callable[[], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it and closes the pipe
    os.dup2(2, 1)  # stdout is reserved for the parent's result
    sys.stdout = sys.stderr
    # Several processes may share a GPU; JAX would allocate most of its memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has ended
        try:
            owned = make()
        except Exception as error:
            pipe.send((_failure(error), None))
            return
        pipe.send((None, None))
        while True:
            function, args, kwargs = pipe.recv()
            response: tuple[Any, Any]
            try:
                response = (None, function(owned, *args, **kwargs))
            except Exception as error:
                response = (_failure(error), None)
            pipe.send(response)


def _failure(error: Exception) -> tuple[str, str]:
    """The message in one line, and the traceback for `--debug`."""
    text = one_line(error)
    if not isinstance(error, RsicdEmbedError):
        text = f"{type(error).__name__}: {one_line(error, limit=300, empty='no message')}"
    return text, "".join(traceback.format_exception(error))
