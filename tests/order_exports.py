"""Order exports for tests, as sellers' back ends write them. All of it is invented."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Final
from zoneinfo import ZoneInfo

from daogou.common.v1.channel_pb2 import Channel
from local.orders import columns, events, files
from local.orders.events import Order
from local.orders.rows import Refusal, Sheets

SHOP_ID: Final = "58501945"
SHANGHAI: Final = ZoneInfo("Asia/Shanghai")

SAMPLE: Final = '''\
子订单编号,主订单编号,买家会员名,标题,价格,购买数量,外部系统编号,商家编码,类目,订单状态,买家实际支付金额,平台补贴,订单创建时间,订单付款时间,发货时间,物流单号,确认收货时间,退款状态,退款金额,退款编号,退款时间,关闭时间,店铺Id
="3301250000000000011",="3301250000000000010",极光小熊,"羊毛大衣, 长款",¥599.00,1,,COAT-M,外套,交易成功,"¥1,599.00",0,2026-03-05 10:00:00,2026-03-05 10:05:30,2026-03-06 09:00,'SF1001,2026-03-09 18:00:00,没有申请退款,0.00,,,,58501945
="3301250000000000012",="3301250000000000010",极光小熊,"围巾 ""冬日""",129.5,2,SCARF,,配饰,交易成功,200,10.05,2026-03-05 10:00:00,2026-03-05 10:05:30,2026-03-06 09:00,'SF1001,2026-03-10 08:00:00,退款成功,100.00,R77,2026-03-12 11:00:00,,58501945
'3301250000000000020,'3301250000000000020\t,,袜子,9.90,3,,SOCKS,,等待买家付款,29.7,,2026-03-05 23:59:59,,,,,,,,,,58501945
3301250000000000030,3301250000000000030,买家三号,袜子,9.90,1,null,SOCKS,,交易关闭,9.90,--,2026-03-05 12:00,,,,,,,,,2026-03-06 12:00,58501945
,,,,,,,,,,,,,,,,,,,,,,
'''  # noqa: E501
"""Three orders: of two articles, one of them partly refunded; one unpaid; one closed without payment."""

Cells = Mapping[str, str]


def cells(**more: str) -> dict[str, str]:
    """A sub-order of one coat that was paid and sent; what is given by header on top."""
    row = {
        "子订单编号": "300011",
        "主订单编号": "300010",
        "买家会员名": "极光小熊",
        "标题": "大衣",
        "价格": "599.00",
        "购买数量": "1",
        "商家编码": "COAT",
        "类目": "",
        "订单状态": "卖家已发货，等待买家确认",
        "买家实际支付金额": "599.00",
        "平台补贴": "",
        "订单创建时间": "2026-03-05 10:00:00",
        "订单付款时间": "2026-03-05 10:05:00",
        "支付单号": "",
        "发货时间": "2026-03-06 09:00:00",
        "物流单号": "SF1",
        "确认收货时间": "",
        "退款状态": "",
        "退款金额": "",
        "退款编号": "",
        "退款时间": "",
        "关闭时间": "",
        "店铺Id": SHOP_ID,
    }
    assert row.keys() >= more.keys(), more
    return {**row, **more}


def export(rows: Iterable[Cells]) -> str:
    """The rows as a file."""
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(cells())
    writer.writerows(row.values() for row in rows)
    return written.getvalue()


def read(*texts: str, shop_id: str = SHOP_ID) -> tuple[list[Order], list[Refusal]]:
    """The orders of files, and what was refused. The files are called a.csv, b.csv and so on."""
    sheets = Sheets(shop_id, SHANGHAI)
    for number, text in enumerate(texts):
        records = files.records(io.StringIO(text, newline=""))
        layout, problems = columns.layout(next(records).cells)
        assert not problems
        name = f"{chr(ord('a') + number)}.csv"
        for record in records:
            if record.problem:
                sheets.add_broken(name, record.line, record.text, record.problem)
            else:
                sheets.add(name, record.line, record.cells, layout)
    orders, refused = [], sheets.refusals
    for group in sheets.orders():
        order = events.order_of(group, Channel.CHANNEL_TMALL, shop_id)
        if isinstance(order, Order):
            orders.append(order)
        else:
            refused += order
    return orders, sorted(refused)
