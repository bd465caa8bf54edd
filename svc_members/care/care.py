"""The services that look after members, put together: profile, tags, consents, follow-up, search."""

from __future__ import annotations

from typing import Final

from chassis.clock import Clock
from chassis.mongo.connection import Database
from chassis.rpc.cursors import Cursors
from chassis.rpc.life import Registration
from daogou.members.v1.consent_pb2_grpc import add_ConsentServiceServicer_to_server as add_consent
from daogou.members.v1.follow_up_pb2_grpc import add_FollowUpServiceServicer_to_server as add_follow_up
from daogou.members.v1.member_search_pb2_grpc import add_MemberSearchServiceServicer_to_server as add_search
from daogou.members.v1.profile_pb2_grpc import add_ProfileServiceServicer_to_server as add_profile
from daogou.members.v1.tag_pb2_grpc import add_TagServiceServicer_to_server as add_tag
from svc_members.care import store_consent, store_contact, store_follow_up, store_member_search, store_tag
from svc_members.care.servicer_consent import ConsentServicer
from svc_members.care.servicer_follow_up import FollowUpServicer
from svc_members.care.servicer_member_search import MemberSearchServicer
from svc_members.care.servicer_profile import ProfileServicer
from svc_members.care.servicer_tag import TagServicer
from svc_members.care.store_consent import ConsentStore
from svc_members.care.store_contact import ContactStore
from svc_members.care.store_follow_up import FollowUpStore
from svc_members.care.store_member_search import MemberSearchStore
from svc_members.care.store_profile import ProfileStore
from svc_members.care.store_tag import TagStore
from svc_members.care.text_sealer import TextSealer
from svc_members.member.store_answering import AnsweringStore
from svc_members.member.store_member import MemberStore

INDEXES: Final = (
    *store_tag.INDEXES,
    *store_consent.INDEXES,
    *store_follow_up.INDEXES,
    *store_contact.INDEXES,
    *store_member_search.INDEXES,
)


def registrations(
    database: Database, members: MemberStore, contacts: ContactStore, texts: TextSealer, clock: Clock
) -> list[Registration]:
    """Each servicer with what adds it to a server."""
    tags, answering, cursors = TagStore(database), AnsweringStore(database), Cursors(texts.digest)
    follow_up = FollowUpServicer(
        members, answering, FollowUpStore(database), contacts, texts, cursors, clock.now
    )
    consents = ConsentStore(database, clock)
    return [
        (add_profile, ProfileServicer(members, ProfileStore(database), texts, clock.now)),
        (add_tag, TagServicer(members, answering, tags, cursors)),
        (add_consent, ConsentServicer(members, consents, texts, cursors, clock.now)),
        (add_follow_up, follow_up),
        (add_search, MemberSearchServicer(MemberSearchStore(database, tags), texts, cursors)),
    ]
