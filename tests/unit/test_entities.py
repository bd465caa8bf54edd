"""Directory entries between messages and documents: what was stored is what is answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from google.protobuf.message import Message

from chassis.sealing import KeyRing, Sealer
from chassis.times import to_timestamp
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.geo_pb2 import Datum, GeoPoint
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import directory_pb2 as pb
from svc_members.directory.entities import BRAND, STORE, Kind, guide_kind, policy_of
from svc_members.member.identities import IdentitySealer
from svc_members.rules.binding import FOR_EVER, Policy, RenewOn, Snatch

NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
GUIDE = guide_kind(IdentitySealer(Sealer(KeyRing("k1", {"k1": b"1" * 32}), b"i" * 32)))
ID = "a" * 16


def stored(kind: Kind[Any], message: Message) -> dict[str, Any]:
    """The entry as the database gives it back."""
    document = {
        "_id": ID,
        "brand_id": ID,
        f"{kind.name}_id": ID,
        "create_time": NOON,
        "update_time": NOON,
        **kind.to_document(ID, message),
    }
    options: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
    return bson.decode(bson.encode(document), options)


def store(**fields: Any) -> pb.Store:
    """A store with everything that it can have."""
    whole: dict[str, Any] = {
        "display_name": "Nanjing Road",
        "kind": pb.STORE_KIND_PHYSICAL,
        "location": GeoPoint(latitude=31.2345678, longitude=-0.0, datum=Datum.DATUM_GCJ02),
        "address": "南京西路 1 号",
        "opening_hours": [
            pb.OpeningHours(weekday=1, open_minute=0, close_minute=1440),
            pb.OpeningHours(weekday=7, open_minute=600, close_minute=601),
        ],
        "shops": [
            pb.ShopAccount(channel=Channel.CHANNEL_TMALL, shop_id="旗舰店/1"),
            pb.ShopAccount(channel=Channel.CHANNEL_MINI_PROGRAM, shop_id="wx:1"),
        ],
    }
    return pb.Store(**{**whole, **fields})


def answered(**own: Any) -> dict[str, Any]:
    """What the service adds to an entry."""
    return {"brand_id": ID, "create_time": to_timestamp(NOON), "update_time": to_timestamp(NOON), **own}


def test_a_store_is_answered_as_it_was_stored() -> None:
    """Each field that a caller can set; places to the last digit."""
    for message in (store(), store(kind=pb.STORE_KIND_ONLINE, location=None, shops=[], opening_hours=[])):
        wanted = pb.Store()
        wanted.CopyFrom(message)
        wanted.MergeFrom(pb.Store(**answered(store_id=ID)))
        assert STORE.to_message(stored(STORE, message)) == wanted


def test_a_brand_that_says_nothing_gets_the_defaults_of_the_contract() -> None:
    """Shanghai, CNY, 90 days of protection, nothing that lapses, no guide her own member."""
    document = stored(BRAND, pb.Brand(display_name="Brand"))
    assert policy_of(document) == Policy(
        snatch=Snatch.AFTER_PROTECTION,
        protection_days=90,
        self_binding=False,
        pool_claim=False,
        validity_days=FOR_EVER,
        renew_on=RenewOn.NONE,
    )
    message = BRAND.to_message(document)
    assert (message.business_time_zone, message.currency_code) == ("Asia/Shanghai", "CNY")


def test_a_brands_policy_is_the_one_that_it_set() -> None:
    """Zero days are zero, and not the default."""
    policy = pb.BindingPolicy(
        snatch=pb.SNATCH_ALWAYS, protection_days=0, self_binding=True, pool_claim=True, validity_days=30
    )
    document = stored(BRAND, pb.Brand(display_name="Brand", binding_policy=policy))
    found = policy_of(document)
    assert (found.snatch, found.protection_days, found.validity_days) == (Snatch.ALWAYS, 0, 30)
    assert (found.self_binding, found.pool_claim) == (True, True)
    assert BRAND.to_message(document).binding_policy.protection_days == 0


def test_a_guides_accounts_are_masked_in_answers_and_sealed_in_storage() -> None:
    """Her own phone number is as private as a customer's."""
    phone = Identity(kind=IdentityKind.IDENTITY_KIND_PHONE, value="13812345678")
    document = stored(GUIDE, pb.Guide(store_id=ID, display_name="Ann", accounts=[phone]))
    assert b"13812345678" not in bson.encode(document)
    message = GUIDE.to_message(document)
    assert [account.value for account in message.accounts] == ["138****5678"]
    assert message.state == pb.GUIDE_STATE_ACTIVE


def fields(kind: Kind[Any], message: Message) -> list[str]:
    """The offending fields of an entry."""
    return [problem.field for problem in kind.problems(message, "store.")]


def test_a_store_that_customers_enter_has_a_place() -> None:
    """The others need none."""
    assert fields(STORE, store(location=None)) == ["store.location"]
    for kind in (pb.STORE_KIND_FLAGSHIP, pb.STORE_KIND_ONLINE):
        assert fields(STORE, store(location=None, kind=kind)) == []


@pytest.mark.parametrize(("opens", "closes", "good"), [(0, 1440, True), (600, 601, True), (600, 600, False)])
def test_opening_hours_end_after_they_begin(opens: int, closes: int, good: bool) -> None:
    """A span over midnight is two."""
    hours = [pb.OpeningHours(weekday=1, open_minute=opens, close_minute=closes)]
    wanted = [] if good else ["store.opening_hours[0].close_minute"]
    assert fields(STORE, store(opening_hours=hours)) == wanted


def test_a_shop_is_named_once() -> None:
    """The same id on another channel is another shop."""
    tmall, taobao = (
        pb.ShopAccount(channel=channel, shop_id="1")
        for channel in (Channel.CHANNEL_TMALL, Channel.CHANNEL_TAOBAO)
    )
    assert fields(STORE, store(shops=[tmall, taobao])) == []
    assert fields(STORE, store(shops=[tmall, taobao, tmall])) == ["store.shops[2]"]
