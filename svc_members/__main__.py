"""The members service: `python -m svc_members`, or with `migrate` to build its indexes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from pydantic import FilePath

from chassis import background
from chassis.audit import Audit
from chassis.ids import new_id
from chassis.mongo.schema import Schema
from chassis.rpc import server
from chassis.rpc.life import Registration
from chassis.rpc.server import Service, Surroundings
from chassis.sealing import KeyRing, Sealer
from chassis.settings import ServiceSettings
from daogou.members.v1.activity_pb2_grpc import add_ActivityServiceServicer_to_server as add_activity
from daogou.members.v1.binding_pb2_grpc import add_BindingServiceServicer_to_server as add_binding
from daogou.members.v1.binding_watch_pb2_grpc import add_BindingWatchServiceServicer_to_server as add_watch
from daogou.members.v1.directory_pb2_grpc import add_DirectoryServiceServicer_to_server as add_directory
from daogou.members.v1.erasure_pb2_grpc import add_ErasureServiceServicer_to_server as add_erasure
from daogou.members.v1.export_pb2_grpc import add_ExportServiceServicer_to_server as add_export
from daogou.members.v1.guide_code_pb2_grpc import add_GuideCodeServiceServicer_to_server as add_guide_code
from daogou.members.v1.handover_pb2_grpc import add_HandoverServiceServicer_to_server as add_handover
from daogou.members.v1.member_import_pb2_grpc import add_MemberImportServiceServicer_to_server as add_import
from daogou.members.v1.member_pb2_grpc import add_MemberServiceServicer_to_server as add_member
from daogou.members.v1.merge_pb2_grpc import add_MergeServiceServicer_to_server as add_merge
from daogou.members.v1.region_pb2_grpc import add_RegionServiceServicer_to_server as add_region
from svc_members import checks
from svc_members.binding import store_activity, store_binding, store_binding_watch
from svc_members.binding.corrections import Corrections
from svc_members.binding.lapses import Lapses
from svc_members.binding.servicer_activity import ActivityServicer
from svc_members.binding.servicer_binding import BindingServicer
from svc_members.binding.servicer_binding_watch import BindingWatchServicer
from svc_members.binding.store_activity import ActivityStore
from svc_members.binding.store_binding import BindingStore
from svc_members.binding.store_binding_watch import BindingWatchStore
from svc_members.binding.store_correction import CorrectionStore
from svc_members.care import care
from svc_members.care.store_contact import ContactStore
from svc_members.care.text_sealer import TextSealer
from svc_members.directory import store_directory
from svc_members.directory.entities import guide_kind
from svc_members.directory.servicer_directory import DirectoryServicer
from svc_members.directory.servicer_region import RegionServicer
from svc_members.directory.store_directory import DirectoryStore
from svc_members.directory.store_region import RegionStore
from svc_members.guide_code import store_guide_code
from svc_members.guide_code.code_signer import CodeSigner
from svc_members.guide_code.servicer_guide_code import GuideCodeServicer
from svc_members.guide_code.store_guide_code import GuideCodeStore
from svc_members.guide_code.store_scan import ScanStore
from svc_members.handover import store_handover
from svc_members.handover.handovers import Handovers
from svc_members.handover.servicer_handover import HandoverServicer
from svc_members.handover.store_handover import HandoverStore
from svc_members.member import store_erasure, store_identity, store_member, store_merge
from svc_members.member.identities import IdentitySealer
from svc_members.member.servicer_erasure import ErasureServicer
from svc_members.member.servicer_export import ExportServicer
from svc_members.member.servicer_member import MemberServicer
from svc_members.member.servicer_member_import import MemberImportServicer
from svc_members.member.servicer_merge import MergeServicer
from svc_members.member.store_answering import AnsweringStore
from svc_members.member.store_erasure import ErasureStore
from svc_members.member.store_export import ExportStore
from svc_members.member.store_identity import IdentityStore
from svc_members.member.store_member import MemberStore
from svc_members.member.store_member_import import MemberImportStore
from svc_members.member.store_merge import MergeStore


class MembersSettings(ServiceSettings):
    """Settings of the members service alone."""

    pii_keys_file: FilePath
    """Keys that personal data is sealed with (chassis.sealing)."""
    guide_code_keys_file: FilePath
    """Keys that guide codes are signed with; key ids are numbers from 0 to 255."""
    guide_code_link_base: str = "https://daogou.example/s/"
    """What a QR holds before the code: the page that opens it."""


SCHEMA = Schema(
    version=1,
    indexes=[
        *store_directory.INDEXES,
        *store_identity.INDEXES,
        *store_member.INDEXES,
        *store_binding.INDEXES,
        *store_binding_watch.INDEXES,
        *store_merge.INDEXES,
        *store_erasure.INDEXES,
        *store_guide_code.INDEXES,
        *store_activity.INDEXES,
        *store_handover.INDEXES,
        *care.INDEXES,
    ],
)


@contextlib.asynccontextmanager
async def composed(around: Surroundings[MembersSettings]) -> AsyncIterator[Sequence[Registration]]:
    """The service's parts, put together."""
    checks.register()
    config, now, database = around.settings, around.clock.now, around.database
    keys = Sealer.from_file(config.pii_keys_file)
    sealer, texts = IdentitySealer(keys), TextSealer(keys)
    signer = CodeSigner(KeyRing.from_file(config.guide_code_keys_file), config.guide_code_link_base)
    directory, linked = DirectoryStore(database), IdentityStore(database, around.clock)
    members = MemberStore(database, linked, around.clock)
    codes, activity, offers = GuideCodeStore(database), ActivityStore(database), HandoverStore(database)
    contacts, answering = ContactStore(database), AnsweringStore(database)
    regions, audit = RegionStore(database), Audit(database["audit"], new_id())
    imports, scans = MemberImportStore(database, linked), ScanStore(database, directory, members)
    bindings, merges = BindingStore(database), MergeStore(database, members, around.clock)
    corrected = CorrectionStore(database, members, around.clock)
    corrections = Corrections(directory, members, bindings, corrected, sealer, audit)
    handovers = Handovers(directory, members, offers, guide_kind(sealer), now)
    rounds = {
        "lapse": Lapses(directory, members, activity, now).round,
        "offer": handovers.offering_round,
        "accept": handovers.overdue_round,
    }
    async with background.running(rounds):
        yield [
            (add_directory, DirectoryServicer(directory, regions, answering, sealer, now)),
            (add_region, RegionServicer(directory, regions, sealer, now)),
            (add_member, MemberServicer(directory, linked, members, merges, handovers, sealer, audit, now)),
            (add_merge, MergeServicer(members, merges, handovers, now)),
            (
                add_export,
                ExportServicer(
                    (members, linked, bindings, merges, ExportStore(database)), sealer, texts, audit, now
                ),
            ),
            (add_erasure, ErasureServicer(ErasureStore(database, members), audit, now)),
            (add_binding, BindingServicer(directory, linked, members, bindings, corrections, sealer, now)),
            (add_watch, BindingWatchServicer(directory, BindingWatchStore(database, around.clock))),
            (
                add_guide_code,
                GuideCodeServicer(directory, linked, members, codes, scans, sealer, signer, now),
            ),
            (add_import, MemberImportServicer(directory, linked, members, imports, sealer, now)),
            (
                add_activity,
                ActivityServicer(directory, members, activity, answering, contacts, sealer, texts, now),
            ),
            (add_handover, HandoverServicer(directory, offers, handovers, sealer, now)),
            *care.registrations(database, members, contacts, texts, around.clock),
        ]


if __name__ == "__main__":
    server.main(Service("members", MembersSettings, SCHEMA, composed))
