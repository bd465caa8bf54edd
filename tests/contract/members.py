"""Members as the tests of this folder make them: scanned by guides, known by cards and phones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from chassis.clock import Clock
from chassis.ids import new_id
from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from chassis.sealing import KeyRing, Sealer
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from svc_members.binding import store_binding
from svc_members.binding.corrections import decision_of
from svc_members.binding.store_binding import Answer, BindingStore, Question
from svc_members.binding.store_correction import Answered, Corrected, CorrectionStore
from svc_members.member import store_erasure, store_identity, store_member, store_merge
from svc_members.member.attempts import until_unchanged
from svc_members.member.identities import IdentitySealer, StoredIdentity
from svc_members.member.member_document import Member
from svc_members.member.store_erasure import ErasureStore
from svc_members.member.store_identity import Held, IdentityStore
from svc_members.member.store_member import MemberStore
from svc_members.member.store_merge import MergeStore
from svc_members.rules import binding
from svc_members.rules.binding import Cause, Decision, Policy, Row, Scan, Snatch
from svc_members.rules.correction import Correction

BRAND = "brandbrandbrand2"
CLOCK = Clock()
SEALER = IdentitySealer(Sealer(KeyRing("k1", {"k1": b"1" * 32}), b"i" * 32))
ALWAYS = Policy(snatch=Snatch.ALWAYS)
PROTECTED = Policy()
SCHEMA = Schema(
    1,
    [
        *store_identity.INDEXES,
        *store_member.INDEXES,
        *store_binding.INDEXES,
        *store_merge.INDEXES,
        *store_erasure.INDEXES,
    ],
)


class MovingClock(Clock):
    """Ours and the database's, ahead of the machine's by as much as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead = timedelta(0)

    def shift(self) -> timedelta:
        """How far."""
        return self._ahead

    def pass_by(self, ahead: timedelta) -> None:
        """Lets time pass."""
        self._ahead += ahead


class Members:
    """The stores of members, and what services do with them."""

    def __init__(self, database: Database, clock: Clock = CLOCK) -> None:
        self.database = database
        self.clock = clock
        self.identities = IdentityStore(database, clock)
        self.store = MemberStore(database, self.identities, clock)
        self.bindings = BindingStore(database)
        self.merges = MergeStore(database, self.store, clock)
        self.erasures = ErasureStore(database, self.store)
        self.corrections = CorrectionStore(database, self.store, clock)

    def later(self, **by: float) -> datetime:
        """Lets time pass: later(days=7). What time it is then."""
        assert isinstance(self.clock, MovingClock), "only such a clock can be moved"
        self.clock.pass_by(timedelta(**by))
        return self.clock.now()

    async def scan(
        self,
        guide: str,
        identity: StoredIdentity,
        policy: Policy = PROTECTED,
        brand_id: str = BRAND,
        *,
        age: timedelta = timedelta(0),
    ) -> tuple[Member, Decision]:
        """What a guide's scan does, as the service does it: read, decide, write; again after a conflict."""
        now = self.clock.now()

        async def read() -> Member:
            return await self.store.holder_of(brand_id, identity, new_id, now)

        async def decide(member: Member, next_id: str) -> Decision:
            scan = Scan(guide, "east", "", now - age, False, member.origin_id, member.not_before)
            return binding.scan(member.rows, scan, policy, next_id)

        return await self.store.decided(read, decide, identity)

    async def enrol(self, *named: StoredIdentity, brand_id: str = BRAND) -> tuple[str, bool]:
        """The id of the one member who holds all of these, and whether he is new."""
        return await self.identities.enrol(brand_id, named, new_id, self.clock.now())

    async def link(self, member_id: str, identity: StoredIdentity) -> str:
        """One more identity of a member; who holds it then."""
        return await self.identities.link(BRAND, Held(member_id, ""), identity, self.clock.now())

    async def joined(
        self, member_id: str, identity: StoredIdentity, brand_id: str = BRAND
    ) -> Document | None:
        """What linking an identity to a member does as the service does it: the merge, if it makes one."""

        async def linked() -> Document | None:
            member = await self.store.find(brand_id, member_id)
            held = Held(member.member_id, member.origin_id)
            holder_id = await self.identities.link(brand_id, held, identity, self.clock.now())
            if holder_id == member.member_id:
                return None
            return await self.merged(member.member_id, holder_id, brand_id)

        return await until_unchanged(linked)

    async def merged(self, one_id: str, two_id: str, brand_id: str = BRAND) -> Document:
        """Makes one of two members."""
        return await self.merges.merge(brand_id, one_id, two_id, new_id(), self.clock.now())

    async def undo(self, merge: Document) -> Document:
        """Makes two of them again."""
        return await self.merges.undo(merge["brand_id"], merge["merge_id"], self.clock.now())

    async def lapse(self, member_id: str, brand_id: str = BRAND) -> None:
        """Ends the binding of whoever answers for an id."""
        member = await self.store.find(brand_id, member_id)
        decision = binding.end(member.rows, self.clock.now(), Cause.LAPSED, member.next_id)
        await self.store.save_rows(member, decision)

    async def unlink(
        self, member_id: str, identity: StoredIdentity, time: datetime | None = None, brand_id: str = BRAND
    ) -> None:
        """Ends a member's holding of an identity, now or at a time that is past."""

        async def unlinked() -> None:
            member = await self.store.find(brand_id, member_id)
            held = Held(member.member_id, member.origin_id)
            await self.identities.unlink(brand_id, held, identity.index, time, self.clock.now())

        await until_unchanged(unlinked)

    async def correct(self, member_id: str, correction: Correction, brand_id: str = BRAND) -> None:
        """Says what a member's past was, as the service does it."""

        def decide(answered: Sequence[Answered]) -> Corrected[None]:
            decisions = [decision_of(one, correction, PROTECTED, member_id, new_id()) for one in answered]
            return Corrected(None, decisions, [{"key": "correct"}])

        await self.corrections.correct(brand_id, member_id, decide)

    async def whose(
        self,
        subject: str | StoredIdentity,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        brand_id: str = BRAND,
    ) -> Answer:
        """Whose a member, or the holder of an identity, was at a moment, as known at another."""
        index, member_id = ("", subject) if isinstance(subject, str) else (subject.index, "")
        question = Question(index, member_id, as_of or self.clock.now(), known_at)
        [answer] = await self.bindings.resolve(brand_id, [question])
        return answer

    async def holders(self, *named: StoredIdentity, brand_id: str = BRAND) -> list[str]:
        """Whose each of these is; empty: nobody's."""
        found = await self.identities.holders(brand_id, [identity.index for identity in named])
        return [found.get(identity.index, "") for identity in named]

    async def count(self, member_id: str) -> int:
        """How many identities a member shows."""
        return len(await self.identities.links(BRAND, member_id))

    async def cut_off(self, identity: StoredIdentity, member_id: str) -> None:
        """Leaves what a service leaves that dies between the two writes of a first scan."""
        await self.identities.link_first(BRAND, member_id, identity)


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
