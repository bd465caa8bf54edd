"""Chapter 3: a scan binds; another guide's scan a minute later does not steal."""

from __future__ import annotations

import io
import secrets
from typing import TYPE_CHECKING

import segno
from rich.text import Text

from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import guide_code_pb2, member_pb2
from daogou.members.v1.guide_code_pb2 import ScanOutcome
from daogou.members.v1.guide_code_pb2_grpc import GuideCodeServiceStub
from daogou.members.v1.member_pb2_grpc import MemberServiceStub
from local.demo.cast import Cast
from local.demo.stage import Stage

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.members.v1.guide_code_pb2_grpc import GuideCodeServiceAsyncStub
    from daogou.members.v1.member_pb2_grpc import MemberServiceAsyncStub


async def customer_scans(stage: Stage, cast: Cast) -> None:
    """Chapter 3: a scan binds; another guide's scan a minute later does not steal."""
    stage.chapter(3, "A customer scans a guide's QR code and becomes her member")
    cast.buyer = Identity(
        kind=IdentityKind.IDENTITY_KIND_TAOBAO_OPEN_ID, value=f"AAE{secrets.randbelow(10**12):012d}"
    )
    in_wechat = Identity(
        kind=IdentityKind.IDENTITY_KIND_WECHAT_UNION_ID, value=f"o6_{secrets.randbelow(10**12):012d}"
    )
    code = await _code(stage, cast, "Lin Mei", "Aurora Nanjing Road")
    stage.say("Lin Mei shows her code:")
    stage.console.print(Text(_terminal_qr(code.link)))
    first = await _scan(stage, cast, code.code, in_wechat)
    cast.member_id = first.member_id
    # A scan that had to be sent twice finds what the first sending did.
    hers = (ScanOutcome.SCAN_OUTCOME_BOUND, ScanOutcome.SCAN_OUTCOME_ALREADY_BOUND)
    bound = first.outcome in hers
    stage.holds("Wang Fang scans it and becomes Lin Mei's member", bound, True)
    stage.holds("the binding is hers", first.binding.guide_id, cast.guides["Lin Mei"])
    stage.later(minutes=1)
    other = await _code(stage, cast, "Chen Yu", "Aurora Xintiandi")
    second = await _scan(stage, cast, other.code, in_wechat)
    kept = second.outcome == ScanOutcome.SCAN_OUTCOME_KEPT
    stage.holds("a minute later she scans Chen Yu's code: she stays Lin Mei's", kept, True)
    stage.holds("the same binding stands", second.binding.binding_id, first.binding.binding_id)
    crm: MemberServiceAsyncStub = MemberServiceStub(
        stage.channel("members", "CONNECTOR", brand=cast.brand_id)
    )
    linked = await stage.call(
        crm.LinkIdentity,
        member_pb2.LinkIdentityRequest(brand_id=cast.brand_id, member_id=cast.member_id, identity=cast.buyer),
    )
    stage.holds("her Tmall account is linked to the same member", len(linked.member.identities), 2)


async def _code(stage: Stage, cast: Cast, guide: str, store: str) -> guide_code_pb2.CreateGuideCodeResponse:
    ids = {"brand": cast.brand_id, "store": cast.stores[store], "guide": cast.guides[guide]}
    own: GuideCodeServiceAsyncStub = GuideCodeServiceStub(stage.channel("members", "GUIDE", **ids))
    return await stage.call(
        own.CreateGuideCode,
        guide_code_pb2.CreateGuideCodeRequest(
            brand_id=ids["brand"], store_id=ids["store"], guide_id=ids["guide"], campaign="autumn"
        ),
    )


def _terminal_qr(link: str) -> str:
    drawn = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(drawn, compact=True, border=2)
    return drawn.getvalue()


async def _scan(
    stage: Stage, cast: Cast, code: str, identity: Identity
) -> guide_code_pb2.ScanGuideCodeResponse:
    app: GuideCodeServiceAsyncStub = GuideCodeServiceStub(
        stage.channel("members", "CONNECTOR", brand=cast.brand_id)
    )
    scan = guide_code_pb2.ScanGuideCodeRequest(brand_id=cast.brand_id, code=code, identity=identity)
    return await stage.call(app.ScanGuideCode, scan)
