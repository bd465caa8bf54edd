"""The members service: `python -m svc_members`, or with `migrate` to build its indexes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from pydantic import FilePath

from chassis.audit import Audit
from chassis.ids import new_id
from chassis.mongo.schema import Schema
from chassis.rpc import server
from chassis.rpc.server import Registration, Service, Surroundings
from chassis.sealing import KeyRing, Sealer
from chassis.settings import ServiceSettings
from daogou.members.v1 import binding_pb2_grpc, directory_pb2_grpc, guide_code_pb2_grpc, member_pb2_grpc
from svc_members import store_directory, store_guide_code, store_member
from svc_members.identities import IdentitySealer
from svc_members.servicer_binding import BindingServicer
from svc_members.servicer_directory import DirectoryServicer
from svc_members.servicer_guide_code import GuideCodeServicer
from svc_members.servicer_member import MemberServicer
from svc_members.store_directory import DirectoryStore
from svc_members.store_guide_code import GuideCodeStore
from svc_members.store_member import MemberStore


class MembersSettings(ServiceSettings):
    """Settings of the members service alone."""

    pii_keys_file: FilePath
    """Keys that personal data is sealed with (chassis.sealing)."""
    guide_code_keys_file: FilePath
    """Keys that guide codes are signed with; key ids are numbers from 0 to 255."""
    guide_code_link_base: str = "https://daogou.example/s/"
    """What a QR holds before the code: the page that opens it."""


SCHEMA = Schema(
    version=1, indexes=[*store_directory.INDEXES, *store_member.INDEXES, *store_guide_code.INDEXES]
)


@contextlib.asynccontextmanager
async def composed(around: Surroundings[MembersSettings]) -> AsyncIterator[Sequence[Registration]]:
    """The service's parts, put together."""
    config, now = around.settings, around.clock.now
    sealer = IdentitySealer(Sealer.from_file(config.pii_keys_file))
    code_keys = KeyRing.from_file(config.guide_code_keys_file)
    directory = DirectoryStore(around.database)
    members = MemberStore(around.database, around.clock)
    codes = GuideCodeStore(around.database)
    audit = Audit(around.database["audit"], new_id())
    code = GuideCodeServicer(directory, members, codes, sealer, code_keys, config.guide_code_link_base, now)
    yield [
        (
            directory_pb2_grpc.add_DirectoryServiceServicer_to_server,
            DirectoryServicer(directory, sealer, now),
        ),
        (
            member_pb2_grpc.add_MemberServiceServicer_to_server,
            MemberServicer(directory, members, sealer, audit, now),
        ),
        (
            binding_pb2_grpc.add_BindingServiceServicer_to_server,
            BindingServicer(directory, members, sealer, now),
        ),
        (guide_code_pb2_grpc.add_GuideCodeServiceServicer_to_server, code),
    ]


if __name__ == "__main__":
    server.main(Service("members", MembersSettings, SCHEMA, composed))
