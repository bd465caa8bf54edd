"""What is owed, and why: order events in, a balanced journal out, every fen explained.

The heart is `rules/order.py`: an order's books as a pure fold of the set of its events. `ingest.py` shows how
events become entries; `__main__.py` how the parts are put together. The contracts stand in
proto/daogou/commission/v1.
"""
