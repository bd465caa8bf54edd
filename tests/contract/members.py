"""Members as the tests of this folder make them: scanned by guides, known by cards and phones."""

from __future__ import annotations

from chassis.clock import Clock
from chassis.ids import new_id
from chassis.mongo import schema
from chassis.mongo.connection import Database
from chassis.mongo.schema import Schema
from chassis.sealing import KeyRing, Sealer
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from svc_members import store_identity, store_member
from svc_members.identities import IdentitySealer, StoredIdentity
from svc_members.rules import binding
from svc_members.rules.binding import Decision, Policy, Row, Scan, Snatch
from svc_members.store_identity import IdentityStore
from svc_members.store_member import Member, MemberStore

BRAND = "brandbrandbrand2"
CLOCK = Clock()
SEALER = IdentitySealer(Sealer(KeyRing("k1", {"k1": b"1" * 32}), b"i" * 32))
ALWAYS = Policy(snatch=Snatch.ALWAYS)
PROTECTED = Policy()
SCHEMA = Schema(1, [*store_identity.INDEXES, *store_member.INDEXES])


class Members:
    """The two stores of members, and what services do with them."""

    def __init__(self, database: Database, clock: Clock = CLOCK) -> None:
        self.database = database
        self.identities = IdentityStore(database)
        self.store = MemberStore(database, self.identities, clock)

    async def scan(
        self, guide: str, identity: StoredIdentity, policy: Policy = PROTECTED, brand_id: str = BRAND
    ) -> tuple[Member, Decision]:
        """What a guide's scan does, as the service does it: read, decide, write; again after a conflict."""
        scan = Scan(guide, "east", "", CLOCK.now(), False)

        async def read() -> Member:
            return await self.store.holder_of(brand_id, identity, new_id, CLOCK.now())

        async def decide(member: Member, next_id: str) -> Decision:
            return binding.scan(member.rows, scan, policy, next_id)

        return await self.store.decided(read, decide, identity)

    async def enrol(self, *named: StoredIdentity) -> tuple[str, bool]:
        """The id of the one member who holds all of these, and whether he is new."""
        return await self.identities.enrol(BRAND, named, new_id, CLOCK.now())

    async def link(self, member_id: str, identity: StoredIdentity) -> None:
        """One more identity of a member."""
        await self.identities.link(BRAND, member_id, identity, CLOCK.now())

    async def holders(self, *named: StoredIdentity, brand_id: str = BRAND) -> list[str]:
        """Whose each of these is; empty: nobody's."""
        found = await self.identities.holders(brand_id, [identity.index for identity in named])
        return [found.get(identity.index, "") for identity in named]

    async def count(self, member_id: str) -> int:
        """How many identities a member shows."""
        return len(await self.identities.links(BRAND, member_id))

    async def cut_off(self, identity: StoredIdentity, member_id: str) -> None:
        """Leaves what a service leaves that dies between the two writes of a first scan."""
        await self.identities.link_first(BRAND, member_id, identity, CLOCK.now())


async def members_of(database: Database, clock: Clock = CLOCK) -> Members:
    """The stores, with their indexes built."""
    await schema.migrate(database, SCHEMA)
    return Members(database, clock)


def card(number: int | str, brand_id: str = BRAND) -> StoredIdentity:
    """A member card, as stored."""
    return SEALER.stored(brand_id, Identity(kind=IdentityKind.IDENTITY_KIND_POS_CARD, value=f"card-{number}"))


def phone(value: str) -> StoredIdentity:
    """A phone number, as stored."""
    return SEALER.stored(BRAND, Identity(kind=IdentityKind.IDENTITY_KIND_PHONE, value=value))


def the_standing(member: Member) -> Row:
    """The row that binds him."""
    found = binding.standing(member.rows)
    assert found is not None
    return found
