"""The commission service, with every command that it sends to MongoDB written down: what its floor replays.

`python -m bench.recorder` is started as a service is, as a process of its own; it is not what is timed.
`BENCH_COMMANDS_FILE` takes one BSON document a command, `{trace_id, name, command}`; the trace is empty where
no call asked for it.
"""

from typing import Final

FILE_VARIABLE: Final = "BENCH_COMMANDS_FILE"
