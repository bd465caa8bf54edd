"""Runs the commission service with a recorder beside its driver."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Final

import bson
from pymongo import monitoring

from bench.recorder import FILE_VARIABLE
from chassis.rpc.call import current

_OF_THE_DRIVER: Final = frozenset({"hello", "ismaster", "ping", "getMore", "killCursors", "endSessions"})
"""What whoever replays the others' commands through a driver sends by itself."""


class Recorder(monitoring.CommandListener):
    """Writes down what is sent. One write a command, at the end of the file: threads do not mix."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Called in the context of whoever sends it."""
        if event.command_name in _OF_THE_DRIVER:
            return
        call = current.get(None)
        recorded = {
            "trace_id": call.trace_id if call else "",
            "name": event.command_name,
            "command": event.command,
        }
        self._file.write(bson.encode(recorded))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing: that it was sent is what counts."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing: that it was sent is what counts."""


if __name__ == "__main__":
    monitoring.register(Recorder(Path(os.environ[FILE_VARIABLE])))
    runpy.run_module("svc_commission", run_name="__main__", alter_sys=True)
