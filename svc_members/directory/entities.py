"""The three kinds of directory entries: their documents, their messages, and what may change.

A document's keys are the message's field names, so that an update mask selects the same in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from chassis.errors import Refused, Violation
from chassis.mongo.connection import Document
from chassis.times import to_optional_timestamp, to_timestamp
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.geo_pb2 import Datum, GeoPoint
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1.directory_pb2 import (
    BindingPolicy,
    Brand,
    Guide,
    GuideState,
    OpeningHours,
    RenewOn,
    ShopAccount,
    Snatch,
    Store,
    StoreKind,
)
from svc_members.directory import postings
from svc_members.member.identities import IdentitySealer
from svc_members.rules import binding

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Kind(Generic[M]):
    """One kind of entry. `to_document` gives the fields a caller may set, under their proto names."""

    name: str
    collection: str
    unknown_reason: str
    message: type[M]
    mutable: frozenset[str]
    problems: Callable[[M, str], list[Violation]]
    to_document: Callable[[str, M], Document]
    to_message: Callable[[Document], M]


def shop_key(shop: ShopAccount) -> str:
    """`CHANNEL|shop id`: what a shop is found by within a brand."""
    return f"{Channel.Name(shop.channel).removeprefix('CHANNEL_')}|{shop.shop_id}"


def policy_of(brand: Document) -> binding.Policy:
    """The binding policy of a brand's document."""
    stored = brand["binding_policy"]
    return binding.Policy(
        snatch=binding.Snatch(stored["snatch"]),
        protection_days=stored["protection_days"],
        self_binding=stored["self_binding"],
        pool_claim=stored["pool_claim"],
        validity_days=stored["validity_days"],
        renew_on=binding.RenewOn(stored["renew_on"]),
    )


def _policy_document(message: BindingPolicy) -> Document:
    default = binding.Policy()
    snatch = Snatch.Name(message.snatch).removeprefix("SNATCH_") if message.snatch else default.snatch.value
    days = message.protection_days if message.HasField("protection_days") else default.protection_days
    return {
        "snatch": snatch,
        "protection_days": days,
        "self_binding": message.self_binding,
        "pool_claim": message.pool_claim,
        "validity_days": message.validity_days
        if message.HasField("validity_days")
        else default.validity_days,
        "renew_on": RenewOn.Name(message.renew_on).removeprefix("RENEW_ON_")
        if message.renew_on
        else default.renew_on.value,
    }


def brand_problems(brand: Brand, path: str) -> list[Violation]:
    """What is wrong with a brand beyond its fields' limits."""
    policy = brand.binding_policy
    if policy.HasField("validity_days") and policy.validity_days == 0:
        return [Violation(f"{path}binding_policy.validity_days", "must be -1 or at least 1")]
    return []


def _brand_document(_brand_id: str, brand: Brand) -> Document:
    return {
        "display_name": brand.display_name,
        "business_time_zone": brand.business_time_zone or "Asia/Shanghai",
        "currency_code": brand.currency_code or "CNY",
        "binding_policy": _policy_document(brand.binding_policy),
    }


def _brand_message(document: Document) -> Brand:
    policy = policy_of(document)
    return Brand(
        brand_id=document["brand_id"],
        display_name=document["display_name"],
        business_time_zone=document["business_time_zone"],
        currency_code=document["currency_code"],
        binding_policy=BindingPolicy(
            snatch=Snatch.Value(f"SNATCH_{policy.snatch}"),
            protection_days=policy.protection_days,
            self_binding=policy.self_binding,
            pool_claim=policy.pool_claim,
            validity_days=policy.validity_days,
            renew_on=RenewOn.Value(f"RENEW_ON_{policy.renew_on}"),
        ),
        create_time=to_timestamp(document["create_time"]),
        update_time=to_timestamp(document["update_time"]),
    )


def store_problems(store: Store, path: str) -> list[Violation]:
    """What is wrong with a store beyond its fields' limits."""
    found = [
        Violation(f"{path}opening_hours[{index}].close_minute", "must be after open_minute")
        for index, hours in enumerate(store.opening_hours)
        if hours.close_minute <= hours.open_minute
    ]
    if store.kind == StoreKind.STORE_KIND_PHYSICAL and not store.HasField("location"):
        found.append(Violation(f"{path}location", "is required for a physical store"))
    shops = [(shop.channel, shop.shop_id) for shop in store.shops]
    found += [
        Violation(f"{path}shops[{index}]", "is named twice")
        for index, shop in enumerate(shops)
        if shop in shops[:index]
    ]
    return found


def _store_document(_brand_id: str, store: Store) -> Document:
    place = store.location
    hours = [(hours.weekday, hours.open_minute, hours.close_minute) for hours in store.opening_hours]
    return {
        "display_name": store.display_name,
        "kind": StoreKind.Name(store.kind).removeprefix("STORE_KIND_"),
        "location": {
            "latitude": place.latitude,
            "longitude": place.longitude,
            "datum": Datum.Name(place.datum).removeprefix("DATUM_"),
        }
        if store.HasField("location")
        else None,
        "address": store.address,
        "opening_hours": [
            {"weekday": weekday, "open_minute": opens, "close_minute": closes}
            for weekday, opens, closes in hours
        ],
        "shops": [shop_key(shop) for shop in store.shops],
        "region_id": store.region_id,
        "manager_guide_id": store.manager_guide_id,
    }


def _shop_account(key: str) -> ShopAccount:
    channel, _, shop_id = key.partition("|")
    return ShopAccount(channel=Channel.Value(f"CHANNEL_{channel}"), shop_id=shop_id)


def _geo_point(place: Document | None) -> GeoPoint | None:
    if place is None:
        return None
    return GeoPoint(
        latitude=place["latitude"],
        longitude=place["longitude"],
        datum=Datum.Value(f"DATUM_{place['datum']}"),
    )


def _store_message(document: Document) -> Store:
    return Store(
        store_id=document["store_id"],
        brand_id=document["brand_id"],
        display_name=document["display_name"],
        kind=StoreKind.Value(f"STORE_KIND_{document['kind']}"),
        location=_geo_point(document["location"]),
        address=document["address"],
        opening_hours=[OpeningHours(**hours) for hours in document["opening_hours"]],
        # The database keeps no empty list of shops: it would count as a value of the unique index.
        shops=[_shop_account(key) for key in document.get("shops", ())],
        create_time=to_timestamp(document["create_time"]),
        update_time=to_timestamp(document["update_time"]),
        region_id=document.get("region_id", ""),
        manager_guide_id=document.get("manager_guide_id", ""),
    )


def check_employed(holder: Document) -> None:
    """Raises: Refused GUIDE_RESIGNED when the holder of a code is a guide who has left."""
    if holder.get("state") == "RESIGNED":
        raise Refused("GUIDE_RESIGNED", "the guide has resigned")


def guide_problems(guide: Guide, path: str) -> list[Violation]:
    """What is wrong with a guide beyond her fields' limits."""
    if guide.state == GuideState.GUIDE_STATE_RESIGNED:
        return [Violation(f"{path}state", "becomes RESIGNED by ResignGuide alone")]
    return []


def masked_identity(stored: Document) -> Identity:
    """An identity with its value masked, from its document."""
    return Identity(
        kind=IdentityKind.Value(f"IDENTITY_KIND_{stored['kind']}"),
        value=stored["masked"],
        app_id=stored["app_id"],
    )


def _guide_message(document: Document) -> Guide:
    return Guide(
        guide_id=document["guide_id"],
        brand_id=document["brand_id"],
        store_id=document["store_id"],
        display_name=document["display_name"],
        state=GuideState.Value(f"GUIDE_STATE_{document['state']}"),
        accounts=[masked_identity(stored) for stored in document["accounts"]],
        create_time=to_timestamp(document["create_time"]),
        update_time=to_timestamp(document["update_time"]),
        postings=postings.messages_of(document),
        resign_time=to_optional_timestamp(document.get("resign_time")),
        member_id=document.get("member_id", ""),
    )


BRAND = Kind(
    name="brand",
    collection="brands",
    unknown_reason="BRAND_UNKNOWN",
    message=Brand,
    mutable=frozenset({"display_name", "binding_policy"}),
    problems=brand_problems,
    to_document=_brand_document,
    to_message=_brand_message,
)

STORE = Kind(
    name="store",
    collection="stores",
    unknown_reason="STORE_UNKNOWN",
    message=Store,
    mutable=frozenset(
        {"display_name", "location", "address", "opening_hours", "shops", "region_id", "manager_guide_id"}
    ),
    problems=store_problems,
    to_document=_store_document,
    to_message=_store_message,
)


def guide_kind(sealer: IdentitySealer) -> Kind[Guide]:
    """The kind of guides, whose accounts are personal data and need the sealer's keys."""

    def to_document(brand_id: str, guide: Guide) -> Document:
        state = guide.state or GuideState.GUIDE_STATE_ACTIVE
        accounts = [sealer.stored(brand_id, account) for account in guide.accounts]
        return {
            "store_id": guide.store_id,
            "display_name": guide.display_name,
            "state": GuideState.Name(state).removeprefix("GUIDE_STATE_"),
            "accounts": [
                {
                    "index": stored.index,
                    "kind": stored.kind,
                    "app_id": stored.app_id,
                    "sealed": stored.sealed,
                    "masked": stored.masked,
                }
                for stored in accounts
            ],
            "member_id": guide.member_id,
        }

    return Kind(
        name="guide",
        collection="guides",
        unknown_reason="GUIDE_UNKNOWN",
        message=Guide,
        mutable=frozenset({"display_name", "state", "accounts", "member_id"}),
        problems=guide_problems,
        to_document=to_document,
        to_message=_guide_message,
    )
