"""Changes of bindings over gRPC, streamed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, ClassVar, Final

from chassis.times import to_timestamp
from daogou.members.v1 import binding_watch_pb2 as pb
from svc_members.binding import binding_watch
from svc_members.binding.binding_watch import Recordings, Told, Watch
from svc_members.binding.resume_token import opened_resume_token, resume_token
from svc_members.directory.entities import BRAND
from svc_members.directory.store_directory import DirectoryStore
from svc_members.member.messages import binding_message

CHANGES_MAX: Final = 500


class BindingWatchServicer:
    """Implements daogou.members.v1.BindingWatchService."""

    ALIVE_EVERY_S: ClassVar = 10.0

    def __init__(self, directory: DirectoryStore, recordings: Recordings) -> None:
        self._directory = directory
        self._recordings = recordings

    async def WatchBindings(
        self, request: pb.WatchBindingsRequest, context: Any
    ) -> AsyncGenerator[pb.WatchBindingsResponse, None]:
        watch = await self._begun(request)
        token = resume_token(request.brand_id, watch.progress)
        yield pb.WatchBindingsResponse(resume_token=token)
        said_s = time.monotonic()
        async with contextlib.aclosing(watch.told()) as found:
            async for told in found:
                before, token = token, resume_token(request.brand_id, watch.progress)
                for message in _messages(request.brand_id, told, before, token):
                    yield message
                    said_s = time.monotonic()
                if time.monotonic() - said_s >= self.ALIVE_EVERY_S:
                    yield pb.WatchBindingsResponse(resume_token=token)
                    said_s = time.monotonic()

    async def _begun(self, request: pb.WatchBindingsRequest) -> Watch:
        brand_id = request.brand_id
        await self._directory.find(BRAND, brand_id, brand_id)
        if request.resume_token:
            return Watch(self._recordings, brand_id, opened_resume_token(brand_id, request.resume_token))
        if request.from_start:
            return Watch(self._recordings, brand_id, binding_watch.FROM_START)
        return await Watch.from_now(self._recordings, brand_id)


def _messages(
    brand_id: str, told: Sequence[Told], before: str, token: str
) -> Iterator[pb.WatchBindingsResponse]:
    """The changes in messages of a size. Only with the last of them is all told that `token` says was."""
    for start in range(0, len(told), CHANGES_MAX):
        end = start + CHANGES_MAX
        yield pb.WatchBindingsResponse(
            changes=[_change_message(brand_id, one) for one in told[start:end]],
            resume_token=before if end < len(told) else token,
        )


def _change_message(brand_id: str, told: Told) -> pb.BindingChange:
    member_id, change = told
    return pb.BindingChange(
        member_id=member_id,
        recorded_time=to_timestamp(change.recorded_time),
        added=[binding_message(brand_id, member_id, row) for row in change.added],
        superseded_binding_ids=change.superseded,
    )
