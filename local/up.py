"""Runs every service on this machine until Ctrl-C: `./daogou up`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from local import token
from local.embedded_mongo import MongoFailed
from local.ports import Ports
from local.service_process import ServiceFailed
from local.services import SERVICES
from local.stack import ROOT, Stack, StackRunning

_STATE: Final = ROOT / ".daogou" / "up"
_COLORS: Final = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan")
_LEVEL_STYLES: Final = {
    "debug": "dim",
    "info": "",
    "warning": "yellow",
    "error": "red",
    "critical": "bold red",
}
_NOT_REPEATED: Final = ("timestamp", "level", "event", "service", "exception")


class LogView:
    """Shows the services' log lines as a person reads them: time, service, what happened, then the rest."""

    def __init__(self, console: Console) -> None:
        self._console = console
        names = [spec.name for spec in SERVICES]
        self._width = max(len(name) for name in names)
        self._styles = dict(zip(names, _COLORS * len(names), strict=False))

    def line(self, name: str, line: str) -> None:
        """Show one line that a service wrote."""
        shown = Text(f"{name:<{self._width}} ", style=self._styles.get(name, ""))
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and "event" in event:
            shown.append_text(Text.assemble(*_parts(event)))
        else:
            shown.append_text(Text.from_ansi(line))
        self._console.print(shown, soft_wrap=True)

    def said(self, what: str) -> None:
        """Show a line of the supervisor's own."""
        self._console.print(Text(f"{'daogou':<{self._width}} ", style="bold").append(what), soft_wrap=True)


def _parts(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    style = _LEVEL_STYLES.get(str(event.get("level")), "")
    yield str(event.get("timestamp", ""))[11:23] + " ", "dim"
    yield f"{event['event']}", f"bold {style}".strip()
    for name, value in event.items():
        if name not in _NOT_REPEATED:
            yield f" {name}=", "dim"
            yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), style
    if "exception" in event:
        yield f"\n{event['exception']}", style


def _welcome(console: Console, stack: Stack) -> None:
    table = Table("service", "gRPC", "health", "metrics", box=None, header_style="bold", pad_edge=False)
    for name, target in stack.targets.items():
        table.add_row(name, target, stack.health_targets[name], stack.metrics_urls[name])
    first = next(iter(stack.targets.values()))
    console.print()
    console.print(table)
    lines = (
        f"\nMongoDB  {stack.mongo.uri}" if "@" not in stack.mongo.uri else "\nMongoDB  as in MONGODB_URI",
        f"Logs     {stack.log_file('*').relative_to(ROOT)}",
        "\nA token for everything, valid for 12 hours (others: ./daogou token --help):",
        f"  export TOKEN={token.mint(stack.keys, 'PLATFORM')}",
        "\nA first call:",
        '  .venv/bin/buf curl --protocol grpc --http2-prior-knowledge -H "authorization: Bearer $TOKEN" \\',
        f"    -d '{{\"page_size\": 10}}' http://{first}/daogou.members.v1.DirectoryService/ListBrands",
        "\nCtrl-C stops everything.\n",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


async def run(state: Path) -> int:
    """Run until SIGINT, SIGTERM or SIGHUP. Returns the exit status: 0 after a clean stop."""
    console = Console(highlight=False)
    view = LogView(console)
    ports = Ports.documented({spec.name: spec.ports for spec in SERVICES})
    stack = Stack(state, ports=ports, on_line=view.line, on_event=view.said)
    main = asyncio.current_task()
    assert main is not None
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            view.said("stopping (again: at once)")
            main.cancel()
        else:
            stack.kill_all()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        view.said("starting MongoDB and the services")
        async with stack:
            for note in ports.notes:
                view.said(note)
            _welcome(console, stack)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        view.said("stopped")
        return 0
    except StackRunning:
        view.said("`./daogou up` is running in this checkout already; there can be one")
    except (MongoFailed, ServiceFailed) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
    return 1


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("usage: ./daogou up   (what it reads from the environment: ./daogou help)")
    sys.exit(asyncio.run(run(_STATE)))
