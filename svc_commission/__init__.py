"""What is owed, and why: order events in, a balanced journal out, every fen explained, months closed.

One folder for each capability: `order` (events taken in, attributed, booked), `plan`, `feed`, `ledger`,
`performance`, `month` (leases, close, statements), `payout` (adjustments, payouts, opening balances),
`reattribution`, `simulation`, `verification`; what they decide stands in `rules`, whose heart is
`rules/order.py`: an order's books as a pure fold of the set of its events. `order/ingest.py` and
`order/booking.py` show how events become entries; `__main__.py` how the parts are put together. The contracts
stand in proto/daogou/commission/v1.
"""
