"""Starts the services on free ports, plays the retail day, stops them: `./daogou demo`."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

import grpc
from rich.console import Console

from local.demo import chapters
from local.demo.stage import NotAsTold, Stage
from local.embedded_mongo import MongoFailed
from local.service_process import ServiceFailed
from local.stack import ROOT, Stack


async def run(console: Console) -> int:
    """Plays the day. Returns the exit status: 0 when everything was as told."""
    begun_s = time.monotonic()
    parent = ROOT / ".daogou"
    parent.mkdir(exist_ok=True)
    state = Path(tempfile.mkdtemp(prefix="demo-", dir=parent))
    folder = parent / "demo"
    folder.mkdir(exist_ok=True)
    try:
        console.print("Starting MongoDB and the services …", style="dim")
        async with Stack(state, testing=True) as stack:
            console.print(f"Ready after {time.monotonic() - begun_s:.1f} s.", style="dim")
            async with Stage(stack, console).open() as stage:
                await chapters.play(stage, folder)
        console.print(
            f"\n[bold green]All {stage.checks} figures are as told.[/bold green] "
            f"The day took {time.monotonic() - begun_s:.1f} s; only its clocks were set ahead."
        )
    except NotAsTold as error:
        console.print(f"\n[bold red]Not as told.[/bold red] {error}")
        return 1
    except grpc.aio.AioRpcError as error:
        console.print(f"\n[bold red]A call failed.[/bold red] {error.code().name}: {error.details()}")
        return 1
    except (MongoFailed, ServiceFailed) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    finally:
        shutil.rmtree(state, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(run(Console(highlight=False))))
