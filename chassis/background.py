"""What a service does without being asked: rounds of work, repeated for as long as it runs.

Every round is safe to repeat and to run on any number of replicas at once, so nothing is lost when one is cut
off and nobody need be elected to run them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from prometheus_client import Counter

from chassis import logs

Round = Callable[[], Awaitable[bool]]
"""Does some of the work. True: there is more to be done at once."""

FAILURES = Counter("daogou_background_failures_total", "Background rounds that failed.", ["work"])


@contextlib.asynccontextmanager
async def running(rounds: Mapping[str, Round], *, every_s: float = 1.0) -> AsyncIterator[None]:
    """Runs the rounds, each by itself, until the block ends."""
    tasks = [asyncio.create_task(_repeat(work, round_, every_s)) for work, round_ in rounds.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _repeat(work: str, round_: Round, every_s: float) -> None:
    log = logs.logger("background")
    while True:
        try:
            more = await round_()
        except Exception as error:
            # Whatever failed is still there to be done: the next round finds it again.
            FAILURES.labels(work).inc()
            log.warning("failed", work=work, error=type(error).__name__, exc_info=error)
            more = False
        await asyncio.sleep(0 if more else every_s)
