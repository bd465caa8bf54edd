"""Starts programs that cannot outlive this process, however it ends."""

from __future__ import annotations

import queue
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Final

Child = subprocess.Popen[bytes]
Output = int | IO[bytes]
PIPE: Final = subprocess.PIPE


def start_child(
    command: Sequence[str], *, output: Output, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Child:
    """Start `command` with standard output and error going to `output`, and no standard input.

    The kernel kills it when this process ends, even by SIGKILL. It has a session of its own, so that a
    terminal's Ctrl-C reaches only this process, which then stops its children in order.

    Raises: OSError when the program cannot be started.
    """
    return _STARTER.start(_dying_with_parent(command), output, env, cwd)


def _dying_with_parent(command: Sequence[str]) -> list[str]:
    # An exec'd helper instead of `preexec_fn`: forking without exec runs gRPC's fork handlers in a process
    # full of gRPC threads. Where util-linux is missing children are stopped in order but not guarded.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else list(command)


class _Starter:
    """Forks every child from one thread that never ends.

    The kernel takes the end of the forking *thread* for the parent's death, so a child forked from a worker
    of a thread pool would be killed as soon as that pool shrinks.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Future[Child], list[str], dict[str, object]]] = (
            queue.SimpleQueue()
        )
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(
        self, command: list[str], output: Output, env: Mapping[str, str] | None, cwd: Path | None
    ) -> Child:
        with self._begin:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="children", daemon=True)
                self._thread.start()
        started: Future[Child] = Future()
        options: dict[str, object] = {"stdout": output, "env": env, "cwd": cwd}
        self._orders.put((started, command, options))
        return started.result()

    def _run(self) -> None:
        while True:
            started, command, options = self._orders.get()
            try:
                child = subprocess.Popen(  # type: ignore[call-overload]
                    command,
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    **options,
                )
            except BaseException as error:  # noqa: BLE001 -- raised in the thread that asked
                started.set_exception(error)
            else:
                started.set_result(child)


_STARTER: Final = _Starter()
