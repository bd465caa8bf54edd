"""What the members service refuses: with the exact reason, every offending field at once, nothing written."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.ids import new_id
from chassis.times import to_timestamp
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.geo_pb2 import Datum, GeoPoint
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import binding_pb2, directory_pb2, guide_code_pb2, member_pb2
from daogou.members.v1.directory_pb2 import BindingPolicy, Brand, Guide, OpeningHours, ShopAccount, Store
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, request_id, store_of

INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
REFUSED: Final = grpc.StatusCode.FAILED_PRECONDITION
REUSED: Final = grpc.StatusCode.ALREADY_EXISTS

PHONE: Final = IdentityKind.IDENTITY_KIND_PHONE
CARD: Final = IdentityKind.IDENTITY_KIND_POS_CARD
OPEN_ID: Final = IdentityKind.IDENTITY_KIND_WECHAT_OPEN_ID

Call = Callable[[World, World], Awaitable[object]]
"""Makes the call, given one's own brand and another."""


@dataclass(frozen=True)
class Case:
    """One thing that is refused."""

    call: Call
    code: grpc.StatusCode
    reason: str
    fields: frozenset[str] = frozenset()


def invalid(call: Call, *fields: str) -> Case:
    """Refused for these fields, and no others."""
    return Case(call, INVALID, "INVALID_FIELDS", frozenset(fields))


# ---- the calls --------------------------------------------------------------------------------------


def create_brand(world: World, brand: Brand, **more: Any) -> Awaitable[object]:
    request = directory_pb2.CreateBrandRequest(**{"request_id": request_id(), "brand": brand, **more})
    return world.platform.directory.CreateBrand(request)


def update_brand(world: World, brand: Brand, *paths: str, **more: Any) -> Awaitable[object]:
    return world.admin.directory.UpdateBrand(
        directory_pb2.UpdateBrandRequest(
            **{
                "brand_id": world.brand_id,
                "request_id": request_id(),
                "brand": brand,
                "update_mask": FieldMask(paths=paths),
                **more,
            }
        )
    )


def create_store(world: World, store: Store | None, **more: Any) -> Awaitable[object]:
    request = directory_pb2.CreateStoreRequest(
        **{"brand_id": world.brand_id, "request_id": request_id(), "store": store, **more}
    )
    return world.admin.directory.CreateStore(request)


def update_store(world: World, store: Store, *paths: str, **more: Any) -> Awaitable[object]:
    return world.admin.directory.UpdateStore(
        directory_pb2.UpdateStoreRequest(
            **{
                "brand_id": world.brand_id,
                "store_id": world.nanjing_road,
                "request_id": request_id(),
                "store": store,
                "update_mask": FieldMask(paths=paths),
                **more,
            }
        )
    )


def create_guide(world: World, guide: Guide, **more: Any) -> Awaitable[object]:
    request = directory_pb2.CreateGuideRequest(
        **{"brand_id": world.brand_id, "request_id": request_id(), "guide": guide, **more}
    )
    return world.admin.directory.CreateGuide(request)


def update_guide(world: World, guide: Guide, *paths: str, **more: Any) -> Awaitable[object]:
    return world.admin.directory.UpdateGuide(
        directory_pb2.UpdateGuideRequest(
            **{
                "brand_id": world.brand_id,
                "guide_id": world.guides[0],
                "request_id": request_id(),
                "guide": guide,
                "update_mask": FieldMask(paths=paths),
                **more,
            }
        )
    )


def create_code(world: World, **more: Any) -> Awaitable[object]:
    return world.connector.codes.CreateGuideCode(
        guide_code_pb2.CreateGuideCodeRequest(
            **{
                "brand_id": world.brand_id,
                "store_id": world.nanjing_road,
                "guide_id": world.guides[0],
                **more,
            }
        )
    )


def enrol(world: World, *identities: Identity, **more: Any) -> Awaitable[object]:
    request = member_pb2.EnrolMemberRequest(**{"brand_id": world.brand_id, "identities": identities, **more})
    return world.connector.members.EnrolMember(request)


def link(world: World, identity: Identity, **more: Any) -> Awaitable[object]:
    request = member_pb2.LinkIdentityRequest(
        **{"brand_id": world.brand_id, "member_id": world.member_id, "identity": identity, **more}
    )
    return world.connector.members.LinkIdentity(request)


def get_member(world: World, **more: Any) -> Awaitable[object]:
    return world.connector.members.GetMember(
        member_pb2.GetMemberRequest(**{"brand_id": world.brand_id, **more})
    )


def reveal(world: World, **more: Any) -> Awaitable[object]:
    return world.admin.members.RevealIdentity(
        member_pb2.RevealIdentityRequest(
            **{
                "brand_id": world.brand_id,
                "member_id": world.member_id,
                "kind": PHONE,
                "purpose": "the customer asked",
                **more,
            }
        )
    )


def resolve(world: World, **query: Any) -> Awaitable[object]:
    request = binding_pb2.ResolveBindingRequest(
        brand_id=world.brand_id, query=binding_pb2.BindingQuery(**query)
    )
    return world.connector.bindings.ResolveBinding(request)


def claim(world: World, **more: Any) -> Awaitable[object]:
    return world.connector.bindings.ClaimMember(
        binding_pb2.ClaimMemberRequest(
            **{
                "brand_id": world.brand_id,
                "member_id": world.member_id,
                "guide_id": world.guides[0],
                **more,
            }
        )
    )


async def scan(world: World, code: str | None = None, **more: Any) -> object:
    request = guide_code_pb2.ScanGuideCodeRequest(
        **{
            "brand_id": world.brand_id,
            "code": await world.code() if code is None else code,
            "identity": world.identity(),
            **more,
        }
    )
    return await world.connector.codes.ScanGuideCode(request)


async def scan_spoilt(world: World, spoil: Callable[[str], str]) -> object:
    return await scan(world, spoil(await world.code()))


async def scan_of(world: World, other: World) -> object:
    return await scan(world, await other.code())


async def scan_at(world: World, **ahead: float) -> object:
    time = world.running.now() + timedelta(**ahead)
    return await scan(world, await world.code(ttl_seconds=366 * 86_400), scanned_time=to_timestamp(time))


def card(text: str = "") -> Identity:
    """A till's card that nobody has yet."""
    return Identity(kind=CARD, value=text or f"card-{secrets.token_hex(8)}")


def phone(text: str) -> Identity:
    return Identity(kind=PHONE, value=text)


def _flipped_signature(code: str) -> str:
    raw = bytearray(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    raw[-1] ^= 1
    return base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()


def _flipped_content(code: str) -> str:
    """Another guide, signed for the first."""
    raw = bytearray(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    raw[30] ^= 1
    return base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()


def _with_another_key(code: str) -> str:
    raw = bytearray(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    raw[1] = 250
    return base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()


def _of_another_version(code: str) -> str:
    raw = bytearray(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    raw[0] = 9
    return base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()


MALFORMED: Final[Mapping[str, Callable[[str], str]]] = {
    "without its last character": lambda code: code[:-1],
    "without its last four characters": lambda code: code[:-4],
    "cut in half": lambda code: code[: len(code) // 2],
    "of one character": lambda code: code[:1],
    "twice": lambda code: code + code,
    "with padding": lambda code: code + "=" * (-len(code) % 4 or 4),
    "with a space": lambda code: code[:20] + " " + code[20:],
    "in another alphabet": lambda code: code[:20] + "+/" + code[22:],
    "in Chinese": lambda code: "导购码",
    "with the link around it": lambda code: f"https://daogou.example/s/{code}",
}


def spoilt(spoil: Callable[[str], str]) -> Call:
    """A scan of a good code after something was done to it."""
    return lambda world, _other: scan_spoilt(world, spoil)


NOBODY: Final = new_id()

CASES: Final[Mapping[str, Case]] = {
    # ---- brands
    "a brand without anything": invalid(
        lambda w, o: w.platform.directory.CreateBrand(directory_pb2.CreateBrandRequest()),
        "request_id",
        "brand",
    ),
    "a brand without a name": invalid(lambda w, o: create_brand(w, Brand()), "brand.display_name"),
    "a brand of which all is wrong": invalid(
        lambda w, o: create_brand(
            w,
            Brand(
                brand_id="not an id",
                display_name="x" * 101,
                business_time_zone="Asia/Nowhere",
                currency_code="RMB",
                binding_policy=BindingPolicy(snatch=7, protection_days=3651),  # type: ignore[arg-type]
            ),
            request_id="short",
        ),
        "request_id",
        "brand.brand_id",
        "brand.display_name",
        "brand.business_time_zone",
        "brand.currency_code",
        "brand.binding_policy.snatch",
        "brand.binding_policy.protection_days",
    ),
    "protection for minus two days": invalid(
        lambda w, o: create_brand(
            w, Brand(display_name="x", binding_policy=BindingPolicy(protection_days=-2))
        ),
        "brand.binding_policy.protection_days",
    ),
    "a name with control characters": invalid(
        lambda w, o: create_brand(w, Brand(display_name="Au\x00ro\nra")), "brand.display_name"
    ),
    "a request id that is no name": invalid(
        lambda w, o: create_brand(w, Brand(display_name="x"), request_id="a request|id"), "request_id"
    ),
    "an unknown brand read": Case(
        lambda w, o: w.platform.directory.GetBrand(directory_pb2.GetBrandRequest(brand_id=NOBODY)),
        NOT_FOUND,
        "BRAND_UNKNOWN",
    ),
    "an unknown brand changed": Case(
        lambda w, o: w.platform.directory.UpdateBrand(
            directory_pb2.UpdateBrandRequest(
                brand_id=NOBODY,
                request_id=request_id(),
                brand=Brand(display_name="x"),
                update_mask=FieldMask(paths=["display_name"]),
            )
        ),
        NOT_FOUND,
        "BRAND_UNKNOWN",
    ),
    "a brand's currency and time zone changed": invalid(
        lambda w, o: update_brand(
            w,
            Brand(currency_code="USD", business_time_zone="UTC"),
            "currency_code",
            "business_time_zone",
        ),
        "update_mask",
    ),
    "a brand's id changed": invalid(
        lambda w, o: update_brand(w, Brand(brand_id=o.brand_id), "brand_id"), "update_mask"
    ),
    "a field changed that there is not": invalid(
        lambda w, o: update_brand(
            w, Brand(display_name="x"), "display_name", "owner", "binding_policy.snatch"
        ),
        "update_mask",
    ),
    "an update that names no field": invalid(
        lambda w, o: update_brand(w, Brand(display_name="x")), "update_mask"
    ),
    "an update without mask": invalid(
        lambda w, o: update_brand(w, Brand(display_name="x"), update_mask=None), "update_mask"
    ),
    "a name taken away": invalid(lambda w, o: update_brand(w, Brand(), "display_name"), "brand.display_name"),
    # ---- stores
    "a store in an unknown brand": Case(
        lambda w, o: w.platform.directory.CreateStore(
            directory_pb2.CreateStoreRequest(brand_id=NOBODY, request_id=request_id(), store=store_of("x"))
        ),
        NOT_FOUND,
        "BRAND_UNKNOWN",
    ),
    "many stores in an unknown brand": Case(
        lambda w, o: w.platform.directory.BatchCreateStores(
            directory_pb2.BatchCreateStoresRequest(
                brand_id=NOBODY, request_id=request_id(), stores=[store_of("x")]
            )
        ),
        NOT_FOUND,
        "BRAND_UNKNOWN",
    ),
    "a store without anything": invalid(lambda w, o: create_store(w, None), "store"),
    "a store of which all is wrong": invalid(
        lambda w, o: create_store(
            w,
            Store(
                display_name="名" * 101,
                kind=17,  # type: ignore[arg-type]
                location=GeoPoint(latitude=90.1, longitude=float("nan")),
                address="x" * 301,
                opening_hours=[OpeningHours(weekday=8, open_minute=-1, close_minute=1441)],
                shops=[ShopAccount(channel=99, shop_id="a shop")],  # type: ignore[arg-type]
            ),
        ),
        "store.display_name",
        "store.kind",
        "store.location.latitude",
        "store.location.longitude",
        "store.location.datum",
        "store.address",
        "store.opening_hours[0].weekday",
        "store.opening_hours[0].open_minute",
        "store.opening_hours[0].close_minute",
        "store.shops[0].channel",
        "store.shops[0].shop_id",
    ),
    "a store at infinity": invalid(
        lambda w, o: create_store(
            w,
            store_of(
                "x",
                location=GeoPoint(latitude=float("inf"), longitude=float("-inf"), datum=Datum.DATUM_WGS84),
            ),
        ),
        "store.location.latitude",
        "store.location.longitude",
    ),
    "a physical store nowhere": invalid(
        lambda w, o: create_store(w, Store(display_name="x", kind=directory_pb2.STORE_KIND_PHYSICAL)),
        "store.location",
    ),
    "hours that end before they begin, a shop named twice, and no place": invalid(
        lambda w, o: create_store(
            w,
            Store(
                display_name="x",
                kind=directory_pb2.STORE_KIND_PHYSICAL,
                opening_hours=[
                    OpeningHours(weekday=1, open_minute=600, close_minute=1200),
                    OpeningHours(weekday=2, open_minute=600, close_minute=600),
                    OpeningHours(weekday=3, open_minute=600, close_minute=500),
                ],
                shops=[ShopAccount(channel=Channel.CHANNEL_TAOBAO, shop_id="s")] * 2,
            ),
        ),
        "store.location",
        "store.opening_hours[1].close_minute",
        "store.opening_hours[2].close_minute",
        "store.shops[1]",
    ),
    "29 spans of opening hours and 21 shops": invalid(
        lambda w, o: create_store(
            w,
            store_of(
                "x",
                opening_hours=[OpeningHours(weekday=1, open_minute=1, close_minute=2)] * 29,
                shops=[
                    ShopAccount(channel=Channel.CHANNEL_TAOBAO, shop_id=f"s{index}") for index in range(21)
                ],
            ),
        ),
        "store.opening_hours",
        "store.shops",
    ),
    "1,001 stores": invalid(
        lambda w, o: w.admin.directory.BatchCreateStores(
            directory_pb2.BatchCreateStoresRequest(
                brand_id=w.brand_id, request_id=request_id(), stores=[store_of("x")] * 1001
            )
        ),
        "stores",
    ),
    "no stores": invalid(
        lambda w, o: w.admin.directory.BatchCreateStores(
            directory_pb2.BatchCreateStoresRequest(brand_id=w.brand_id, request_id=request_id())
        ),
        "stores",
    ),
    "another store's shop": Case(
        lambda w, o: create_store(
            w, store_of("x", shops=[ShopAccount(channel=Channel.CHANNEL_TMALL, shop_id=w.shop_id)])
        ),
        REFUSED,
        "SHOP_TAKEN",
    ),
    "another store's shop, by a change": Case(
        lambda w, o: update_store(
            w,
            Store(shops=[ShopAccount(channel=Channel.CHANNEL_TMALL, shop_id=w.shop_id)]),
            "shops",
        ),
        REFUSED,
        "SHOP_TAKEN",
    ),
    "an unknown store read": Case(
        lambda w, o: w.admin.directory.GetStore(
            directory_pb2.GetStoreRequest(brand_id=w.brand_id, store_id=NOBODY)
        ),
        NOT_FOUND,
        "STORE_UNKNOWN",
    ),
    "another brand's store read": Case(
        lambda w, o: w.admin.directory.GetStore(
            directory_pb2.GetStoreRequest(brand_id=w.brand_id, store_id=o.nanjing_road)
        ),
        NOT_FOUND,
        "STORE_UNKNOWN",
    ),
    "another brand's store changed": Case(
        lambda w, o: update_store(w, Store(display_name="x"), "display_name", store_id=o.nanjing_road),
        NOT_FOUND,
        "STORE_UNKNOWN",
    ),
    "a store's kind and brand changed": invalid(
        lambda w, o: update_store(
            w,
            Store(kind=directory_pb2.STORE_KIND_ONLINE, brand_id=o.brand_id),
            "kind",
            "brand_id",
            "create_time",
        ),
        "update_mask",
    ),
    "a physical store's place taken away": invalid(
        lambda w, o: update_store(w, Store(), "location"), "store.location"
    ),
    "an id that is none": invalid(
        lambda w, o: w.admin.directory.GetStore(
            directory_pb2.GetStoreRequest(brand_id=w.brand_id, store_id="A" * 16)
        ),
        "store_id",
    ),
    "1,001 stores looked up": invalid(
        lambda w, o: w.connector.directory.BatchGetStores(
            directory_pb2.BatchGetStoresRequest(
                brand_id=w.brand_id,
                keys=[directory_pb2.BatchGetStoresRequest.Key(store_id=NOBODY)] * 1001,
            )
        ),
        "keys",
    ),
    # ---- guides
    "a guide in an unknown store": Case(
        lambda w, o: create_guide(w, Guide(store_id=NOBODY, display_name="x")),
        NOT_FOUND,
        "STORE_UNKNOWN",
    ),
    "a guide in another brand's store": Case(
        lambda w, o: create_guide(w, Guide(store_id=o.nanjing_road, display_name="x")),
        NOT_FOUND,
        "STORE_UNKNOWN",
    ),
    "a guide of whom all is wrong": invalid(
        lambda w, o: create_guide(
            w,
            Guide(
                store_id="x",
                display_name="x" * 101,
                state=9,  # type: ignore[arg-type]
                accounts=[Identity(kind=99, value="", app_id="an app")],  # type: ignore[arg-type]
            ),
        ),
        "guide.store_id",
        "guide.display_name",
        "guide.state",
        "guide.accounts[0].kind",
        "guide.accounts[0].value",
        "guide.accounts[0].app_id",
    ),
    "a guide's accounts that are none": invalid(
        lambda w, o: create_guide(
            w,
            Guide(
                store_id=w.nanjing_road,
                display_name="x",
                accounts=[phone("12"), card(), Identity(kind=OPEN_ID, value="open")],
            ),
        ),
        "guide.accounts[0].value",
        "guide.accounts[2].app_id",
    ),
    "21 accounts": invalid(
        lambda w, o: create_guide(
            w, Guide(store_id=w.nanjing_road, display_name="x", accounts=[card()] * 21)
        ),
        "guide.accounts",
    ),
    "1,001 guides": invalid(
        lambda w, o: w.admin.directory.BatchCreateGuides(
            directory_pb2.BatchCreateGuidesRequest(
                brand_id=w.brand_id,
                request_id=request_id(),
                guides=[Guide(store_id=w.nanjing_road, display_name="x")] * 1001,
            )
        ),
        "guides",
    ),
    "another brand's guide read": Case(
        lambda w, o: w.admin.directory.GetGuide(
            directory_pb2.GetGuideRequest(brand_id=w.brand_id, guide_id=o.guides[0])
        ),
        NOT_FOUND,
        "GUIDE_UNKNOWN",
    ),
    "another brand's guide changed": Case(
        lambda w, o: update_guide(w, Guide(display_name="x"), "display_name", guide_id=o.guides[0]),
        NOT_FOUND,
        "GUIDE_UNKNOWN",
    ),
    "a guide's store changed by an update": invalid(
        lambda w, o: update_guide(w, Guide(store_id=w.xintiandi), "store_id"), "update_mask"
    ),
    "a guide's accounts changed to none": invalid(
        lambda w, o: update_guide(w, Guide(accounts=[card(), phone("nobody")]), "accounts"),
        "guide.accounts[1].value",
    ),
    # ---- lists
    **{
        f"{token!r} for a page token of {what}": Case(call, INVALID, "PAGE_TOKEN_INVALID")
        for token in ("!!!", "x", base64.urlsafe_b64encode(b"nonsense").decode(), "导购")
        for what, call in {
            "brands": lambda w, o, token=token: w.platform.directory.ListBrands(
                directory_pb2.ListBrandsRequest(page_token=token)
            ),
            "stores": lambda w, o, token=token: w.admin.directory.ListStores(
                directory_pb2.ListStoresRequest(brand_id=w.brand_id, page_token=token)
            ),
            "guides": lambda w, o, token=token: w.admin.directory.ListGuides(
                directory_pb2.ListGuidesRequest(brand_id=w.brand_id, page_token=token)
            ),
        }.items()
    },
    "a page of minus one, from too long a token": invalid(
        lambda w, o: w.admin.directory.ListGuides(
            directory_pb2.ListGuidesRequest(
                brand_id=w.brand_id, store_id="x", page_size=-1, page_token="x" * 257
            )
        ),
        "store_id",
        "page_size",
        "page_token",
    ),
    "a page of 1,001": invalid(
        lambda w, o: w.platform.directory.ListBrands(directory_pb2.ListBrandsRequest(page_size=1001)),
        "page_size",
    ),
    # ---- members and identities
    "a customer of an unknown brand": Case(
        lambda w, o: w.running.caller("CONNECTOR", brand=NOBODY).members.EnrolMember(
            member_pb2.EnrolMemberRequest(brand_id=NOBODY, identities=[card()])
        ),
        NOT_FOUND,
        "BRAND_UNKNOWN",
    ),
    "a customer without identity": invalid(lambda w, o: enrol(w), "identities"),
    "11 identities": invalid(lambda w, o: enrol(w, *[card() for _ in range(11)]), "identities"),
    "identities of which all is wrong": invalid(
        lambda w, o: enrol(
            w,
            Identity(value="x" * 129),
            card(),
            Identity(kind=99, value="x", app_id="a|b"),  # type: ignore[arg-type]
            Identity(kind=CARD, value="a\x00b"),
        ),
        "identities[0].kind",
        "identities[0].value",
        "identities[2].kind",
        "identities[2].app_id",
        "identities[3].value",
    ),
    "numbers that are no phone numbers": invalid(
        lambda w, o: enrol(
            w,
            phone("12"),
            phone("13800138000"),
            phone("not a phone"),
            phone("+"),
            phone("+86" + "9" * 40),
            phone("138001380001234567"),
            Identity(kind=OPEN_ID, value="open id without app"),
        ),
        "identities[0].value",
        "identities[2].value",
        "identities[3].value",
        "identities[4].value",
        "identities[5].value",
        "identities[6].app_id",
    ),
    "identities of two members": Case(
        lambda w, o: _two_members_in_one(w), REFUSED, "IDENTITIES_OF_DIFFERENT_MEMBERS"
    ),
    "a link to an unknown member": Case(
        lambda w, o: link(w, card(), member_id=NOBODY), NOT_FOUND, "MEMBER_UNKNOWN"
    ),
    "a link to another brand's member": Case(
        lambda w, o: link(w, card(), member_id=o.member_id), NOT_FOUND, "MEMBER_UNKNOWN"
    ),
    "a malformed number linked": invalid(lambda w, o: link(w, phone("12")), "identity.value"),
    "nothing linked": invalid(
        lambda w, o: w.connector.members.LinkIdentity(member_pb2.LinkIdentityRequest(brand_id=w.brand_id)),
        "member_id",
        "identity",
    ),
    "nobody in particular read": invalid(lambda w, o: get_member(w), "member"),
    "an unknown member read": Case(lambda w, o: get_member(w, member_id=NOBODY), NOT_FOUND, "MEMBER_UNKNOWN"),
    "another brand's member read": Case(
        lambda w, o: get_member(w, member_id=o.member_id), NOT_FOUND, "MEMBER_UNKNOWN"
    ),
    "another brand's member read by his phone": Case(
        lambda w, o: get_member(w, identity=o.phone), NOT_FOUND, "MEMBER_UNKNOWN"
    ),
    "a malformed number read": invalid(lambda w, o: get_member(w, identity=phone("12")), "identity.value"),
    "an unknown member revealed": Case(lambda w, o: reveal(w, member_id=NOBODY), NOT_FOUND, "MEMBER_UNKNOWN"),
    "another brand's member revealed": Case(
        lambda w, o: reveal(w, member_id=o.member_id), NOT_FOUND, "MEMBER_UNKNOWN"
    ),
    "revealed without purpose, of no kind": invalid(
        lambda w, o: reveal(w, kind=0, purpose=""), "kind", "purpose"
    ),
    "revealed with a purpose of 201 characters": invalid(
        lambda w, o: reveal(w, purpose="x" * 201), "purpose"
    ),
    # ---- guide codes
    "a code of an unknown guide": Case(
        lambda w, o: create_code(w, guide_id=NOBODY), NOT_FOUND, "GUIDE_UNKNOWN"
    ),
    "a code of another brand's guide": Case(
        lambda w, o: create_code(w, guide_id=o.guides[0]), NOT_FOUND, "GUIDE_UNKNOWN"
    ),
    "a code of a guide of another store": Case(
        lambda w, o: create_code(w, store_id=w.xintiandi), REFUSED, "GUIDE_NOT_OF_STORE"
    ),
    "a code of another brand's store": Case(
        lambda w, o: create_code(w, store_id=o.nanjing_road, guide_id=""), NOT_FOUND, "STORE_UNKNOWN"
    ),
    "a code for minus one second in a long campaign": invalid(
        lambda w, o: create_code(w, campaign="x" * 17, ttl_seconds=-1), "campaign", "ttl_seconds"
    ),
    "a code for more than a year": invalid(
        lambda w, o: create_code(w, ttl_seconds=31_622_401), "ttl_seconds"
    ),
    "a campaign that fits into no code": invalid(lambda w, o: create_code(w, campaign="双十一"), "campaign"),
    "a scan without anything": invalid(
        lambda w, o: w.connector.codes.ScanGuideCode(
            guide_code_pb2.ScanGuideCodeRequest(brand_id=w.brand_id)
        ),
        "code",
        "identity",
    ),
    "a scan by a malformed number": invalid(lambda w, o: scan(w, identity=phone("12")), "identity.value"),
    "a forged code": Case(lambda w, o: scan_spoilt(w, _flipped_signature), INVALID, "GUIDE_CODE_FORGED"),
    "a code with another guide put in": Case(
        lambda w, o: scan_spoilt(w, _flipped_content), INVALID, "GUIDE_CODE_FORGED"
    ),
    "a code signed with a key that is not known": Case(
        lambda w, o: scan_spoilt(w, _with_another_key), INVALID, "GUIDE_CODE_FORGED"
    ),
    "a code of another version": Case(
        lambda w, o: scan_spoilt(w, _of_another_version), INVALID, "GUIDE_CODE_MALFORMED"
    ),
    **{
        f"a code {what}": Case(spoilt(spoil), INVALID, "GUIDE_CODE_MALFORMED")
        for what, spoil in MALFORMED.items()
    },
    "a code of 257 characters": invalid(lambda w, o: scan(w, "x" * 257), "code"),
    "an alias nobody has": Case(lambda w, o: scan(w, NOBODY), NOT_FOUND, "CODE_ALIAS_UNKNOWN"),
    "another brand's code": Case(scan_of, INVALID, "GUIDE_CODE_OF_ANOTHER_BRAND"),
    "a scan in an hour": Case(lambda w, o: scan_at(w, hours=1), INVALID, "SCAN_IN_FUTURE"),
    "a scan in ten seconds": Case(lambda w, o: scan_at(w, seconds=10), INVALID, "SCAN_IN_FUTURE"),
    "a scan in a thousand years": Case(lambda w, o: scan_at(w, days=365_000), INVALID, "SCAN_IN_FUTURE"),
    "a scan of yesterday's yesterday": Case(lambda w, o: scan_at(w, days=-2), INVALID, "SCAN_TOO_OLD"),
    "a scan of 24 hours and a bit ago": Case(
        lambda w, o: scan_at(w, hours=-24, seconds=-1), INVALID, "SCAN_TOO_OLD"
    ),
    "a scan outside of time": invalid(
        lambda w, o: scan(w, scanned_time=Timestamp(seconds=1, nanos=-1)),
        "scanned_time",
    ),
    "codes of a guide of another store revoked": Case(
        lambda w, o: w.admin.codes.RevokeGuideCodes(
            guide_code_pb2.RevokeGuideCodesRequest(
                brand_id=w.brand_id,
                request_id=request_id(),
                store_id=w.xintiandi,
                guide_id=w.guides[0],
            )
        ),
        REFUSED,
        "GUIDE_NOT_OF_STORE",
    ),
    # ---- bindings
    "a binding known this very moment": Case(
        lambda w, o: resolve(w, member_id=w.member_id, known_at_time=to_timestamp(w.running.now())),
        REFUSED,
        "KNOWN_AT_TOO_RECENT",
    ),
    "a binding as it will be known tomorrow": Case(
        lambda w, o: resolve(
            w,
            member_id=w.member_id,
            known_at_time=to_timestamp(w.running.now() + timedelta(days=1)),
        ),
        REFUSED,
        "KNOWN_AT_TOO_RECENT",
    ),
    "a question about nobody": invalid(lambda w, o: resolve(w), "query.subject"),
    "a question about a malformed number": invalid(
        lambda w, o: resolve(w, identity=phone("1")), "query.identity.value"
    ),
    "1,001 questions": invalid(
        lambda w, o: w.connector.bindings.BatchResolveBindings(
            binding_pb2.BatchResolveBindingsRequest(
                brand_id=w.brand_id, queries=[binding_pb2.BindingQuery(member_id=NOBODY)] * 1001
            )
        ),
        "queries",
    ),
    "another brand's rows": Case(
        lambda w, o: w.connector.bindings.ListBindingRows(
            binding_pb2.ListBindingRowsRequest(brand_id=w.brand_id, member_id=o.member_id)
        ),
        NOT_FOUND,
        "MEMBER_UNKNOWN",
    ),
    "a claim where nobody may claim": Case(lambda w, o: claim(w), REFUSED, "POOL_CLAIM_OFF"),
    "another brand's member claimed": Case(
        lambda w, o: claim(w, member_id=o.member_id), NOT_FOUND, "MEMBER_UNKNOWN"
    ),
    "a claim by another brand's guide": Case(
        lambda w, o: claim(w, guide_id=o.guides[0]), NOT_FOUND, "GUIDE_UNKNOWN"
    ),
}

KNOWN: dict[str, Identity] = {}
"""Two members of the module's brand, by an identity each."""


async def _two_members_in_one(world: World) -> object:
    return await enrol(world, KNOWN["first"], card(), KNOWN["second"])


@pytest.fixture(scope="module")
async def other(running: Running) -> World:
    """Another brand, as well furnished."""
    found = await a_world(running)
    await found.scan(await found.code(), found.identity())
    return found


@pytest.fixture(scope="module")
async def own(running: Running) -> World:
    """The brand that all calls are about, with two members."""
    world = await a_world(running)
    for name in ("first", "second"):
        KNOWN[name] = card()
        await enrol(world, KNOWN[name])
    return world


@pytest.mark.parametrize("name", CASES)
async def test_refused(name: str, running: Running, own: World, other: World) -> None:
    case = CASES[name]
    with running.nothing_written(own.brand_id, other.brand_id):
        found = await refusal(case.call(own, other))
    assert (found.code, found.reason) == (case.code, case.reason), found
    assert found.fields == case.fields, found.violations
    assert all(violation.description for violation in found.violations)
    assert len(found.trace_id) == 32


async def test_what_is_known_can_be_asked_when_the_refusal_says(own: World) -> None:
    found = await refusal(
        resolve(own, member_id=own.member_id, known_at_time=to_timestamp(own.running.now()))
    )
    assert found.retry_after_s is not None
    assert 4.5 < found.retry_after_s <= 5
    own.running.later(seconds=6)
    earlier = own.running.now() - timedelta(seconds=5.5)
    await resolve(own, member_id=own.member_id, known_at_time=to_timestamp(earlier))


async def test_a_code_is_refused_once_it_has_expired(running: Running, own: World) -> None:
    code, customer = await own.code(ttl_seconds=60), own.identity()
    running.later(seconds=61)
    with running.nothing_written(own.brand_id):
        found = await refusal(own.scan(code, customer))
    assert (found.code, found.reason) == (REFUSED, "GUIDE_CODE_EXPIRED")
    # He scanned while it was good; his phone was offline.
    in_time = to_timestamp(running.now() - timedelta(seconds=30))
    assert (await own.scan(code, customer, scanned_time=in_time)).member_id


async def test_a_guide_who_scans_her_own_code_leaves_no_trace(running: Running, own: World) -> None:
    account = own.identity()
    guide = Guide(store_id=own.nanjing_road, display_name="Narcissa", accounts=[account])
    hired = await own.admin.directory.CreateGuide(
        directory_pb2.CreateGuideRequest(brand_id=own.brand_id, request_id=request_id(), guide=guide)
    )
    code = await own.connector.codes.CreateGuideCode(
        guide_code_pb2.CreateGuideCodeRequest(
            brand_id=own.brand_id, store_id=own.nanjing_road, guide_id=hired.guide.guide_id
        )
    )
    with running.nothing_written(own.brand_id):
        found = await refusal(own.scan(code.code, account))
    assert (found.code, found.reason) == (REFUSED, "SELF_BINDING")


async def test_the_51st_identity_of_a_member_is_refused(running: Running, own: World) -> None:
    member_id = ""
    known = card()
    for _ in range(6):
        reply = await own.connector.members.EnrolMember(
            member_pb2.EnrolMemberRequest(
                brand_id=own.brand_id, identities=[known, *[card() for _ in range(8)]]
            )
        )
        member_id = reply.member.member_id
    # One and six times eight are 49.
    await link(own, card(), member_id=member_id)
    with running.nothing_written(own.brand_id):
        found = await refusal(link(own, card(), member_id=member_id))
        assert (found.code, found.reason) == (REFUSED, "TOO_MANY_IDENTITIES")
        found = await refusal(enrol(own, known, card(), card()))
        assert (found.code, found.reason) == (REFUSED, "TOO_MANY_IDENTITIES")


# ---- one name, two requests -------------------------------------------------------------------------

_TWICE: Final[Mapping[str, tuple[Callable[[World, str], Awaitable[object]], ...]]] = {
    "CreateBrand": (
        lambda w, name: create_brand(w, Brand(display_name="One"), request_id=name),
        lambda w, name: create_brand(w, Brand(display_name="Two"), request_id=name),
    ),
    "CreateStore": (
        lambda w, name: create_store(w, store_of("One"), request_id=name),
        lambda w, name: create_store(w, store_of("Two"), request_id=name),
    ),
    "CreateGuide": (
        lambda w, name: create_guide(w, Guide(store_id=w.nanjing_road, display_name="One"), request_id=name),
        lambda w, name: create_guide(w, Guide(store_id=w.xintiandi, display_name="One"), request_id=name),
    ),
    "UpdateBrand": (
        lambda w, name: update_brand(w, Brand(display_name="One"), "display_name", request_id=name),
        lambda w, name: update_brand(w, Brand(display_name="Two"), "display_name", request_id=name),
    ),
    "UpdateStore": (
        lambda w, name: update_store(w, Store(address="One"), "address", request_id=name),
        lambda w, name: update_store(w, Store(address="One"), "address", "opening_hours", request_id=name),
    ),
    "UpdateGuide": (
        lambda w, name: update_guide(w, Guide(display_name="One"), "display_name", request_id=name),
        lambda w, name: update_guide(
            w,
            Guide(display_name="One", state=directory_pb2.GUIDE_STATE_ON_LEAVE),
            "display_name",
            request_id=name,
        ),
    ),
}


@pytest.mark.parametrize("method", _TWICE)
async def test_a_request_id_is_not_good_for_another_body(method: str, running: Running, own: World) -> None:
    first, second = _TWICE[method]
    name = request_id()
    reply = await first(own, name)
    with running.nothing_written(own.brand_id):
        found = await refusal(second(own, name))
        assert (found.code, found.reason) == (REUSED, "REQUEST_ID_REUSED")
        assert await first(own, name) == reply, "the first request is still answered as it was"


# ---- batches: by item, in the reply -----------------------------------------------------------------


async def test_bad_items_of_a_batch_are_named_and_the_good_ones_made(own: World, other: World) -> None:
    guides = [
        Guide(store_id=own.nanjing_road, display_name="Good"),
        Guide(store_id=own.nanjing_road, display_name="x" * 101, state=5),  # type: ignore[arg-type]
        Guide(store_id=other.nanjing_road, display_name="Elsewhere"),
        Guide(store_id="nowhere", display_name=""),
        Guide(store_id=own.nanjing_road, display_name="Unreachable", accounts=[phone("1"), phone("2")]),
        Guide(store_id=own.xintiandi, display_name="Good too"),
    ]
    reply = await own.admin.directory.BatchCreateGuides(
        directory_pb2.BatchCreateGuidesRequest(brand_id=own.brand_id, request_id=request_id(), guides=guides)
    )
    found = [
        (result.error.reason, {violation.field for violation in result.error.violations})
        for result in reply.results
    ]
    assert found == [
        ("", set()),
        ("INVALID_FIELDS", {"display_name", "state"}),
        ("STORE_UNKNOWN", set()),
        ("INVALID_FIELDS", {"store_id", "display_name"}),
        ("INVALID_FIELDS", {"accounts[0].value", "accounts[1].value"}),
        ("", set()),
    ]
    made = [result.guide.display_name for result in reply.results if result.HasField("guide")]
    assert made == ["Good", "Good too"]


async def test_an_items_limits_and_rules_are_named_together(own: World) -> None:
    """Whoever mends what he was told of is not told of something else the next time."""
    spans = [OpeningHours(weekday=1, open_minute=600, close_minute=500)]
    store = Store(display_name="x" * 101, kind=directory_pb2.STORE_KIND_PHYSICAL, opening_hours=spans)
    reply = await own.admin.directory.BatchCreateStores(
        directory_pb2.BatchCreateStoresRequest(
            brand_id=own.brand_id, request_id=request_id(), stores=[store, store_of("Good")]
        )
    )
    [bad, good] = reply.results
    assert {violation.field for violation in bad.error.violations} == {
        "display_name",
        "location",
        "opening_hours[0].close_minute",
    }
    assert good.HasField("store")


async def test_a_calls_limits_and_rules_are_named_together(own: World) -> None:
    """As for items: whoever mends what he was told of is not told of something else the next time."""
    physical = directory_pb2.STORE_KIND_PHYSICAL
    found = await refusal(create_store(own, Store(display_name="x" * 101, kind=physical)))
    assert found.fields == {"store.display_name", "store.location"}


async def test_bad_questions_of_a_batch_do_not_spoil_their_neighbours(own: World, other: World) -> None:
    now = own.running.now()
    queries = [
        binding_pb2.BindingQuery(member_id=own.member_id),
        binding_pb2.BindingQuery(),
        binding_pb2.BindingQuery(member_id="x"),
        binding_pb2.BindingQuery(identity=phone("1")),
        binding_pb2.BindingQuery(member_id=own.member_id, known_at_time=to_timestamp(now)),
        binding_pb2.BindingQuery(member_id=other.member_id),
        binding_pb2.BindingQuery(identity=own.phone),
    ]
    reply = await own.connector.bindings.BatchResolveBindings(
        binding_pb2.BatchResolveBindingsRequest(brand_id=own.brand_id, queries=queries)
    )
    found = [
        (one.member_id, one.error.reason, [violation.field for violation in one.error.violations])
        for one in reply.resolved
    ]
    assert found == [
        (own.member_id, "", []),
        ("", "INVALID_FIELDS", ["subject"]),
        ("", "INVALID_FIELDS", ["member_id"]),
        ("", "INVALID_FIELDS", ["identity.value"]),
        ("", "KNOWN_AT_TOO_RECENT", []),
        ("", "", []),
        (own.member_id, "", []),
    ]


async def test_of_very_many_violations_the_first_are_named_and_the_rest_counted(own: World) -> None:
    """More would not fit into a reply's trailer, and the refusal would be lost with them."""
    never = directory_pb2.OpeningHours(weekday=9, open_minute=-1, close_minute=-1)
    found = await refusal(create_store(own, store_of("Always closed", opening_hours=[never] * 28)))
    assert (found.code, found.reason) == (INVALID, "INVALID_FIELDS")
    *named, last = found.violations
    assert 20 <= len(named) <= 50
    # Weekday, opening, closing, and closing before opening, of each.
    assert last.description == f"and {28 * 4 - len(named)} more"


async def test_a_bad_key_spoils_no_other_look_up(own: World) -> None:
    key = directory_pb2.BatchGetStoresRequest.Key
    keys = [key(), key(store_id="x"), key(shop=ShopAccount(shop_id="s")), key(store_id=own.nanjing_road)]
    reply = await own.connector.directory.BatchGetStores(
        directory_pb2.BatchGetStoresRequest(brand_id=own.brand_id, keys=keys)
    )
    fields = [[one.field for one in result.error.violations] for result in reply.results]
    assert fields == [["key"], ["store_id"], ["shop.channel"], []]
    assert reply.results[3].store.store_id == own.nanjing_road
