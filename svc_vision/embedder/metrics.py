"""What Prometheus is told of the embedder."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

WAITING = Gauge("daogou_vision_embed_queue_items", "Crops that wait for the engine.", ["priority"])
AGE = Gauge("daogou_vision_embed_queue_age_seconds", "How long the crop has waited that waits longest.")
EMBEDDED = Counter("daogou_vision_embed_items_total", "Crops that were embedded.", ["priority"])
BATCH = Histogram(
    "daogou_vision_embed_batch_items", "Crops in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
PADDING = Counter("daogou_vision_embed_padding_items_total", "Places in batches that nothing filled.")
STAGE = Histogram(
    "daogou_vision_embed_stage_seconds",
    "Where the time goes: queue, by crop; copy and compute, by run.",
    ["stage"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
REFUSED = Counter("daogou_vision_embed_refused_items_total", "Crops refused at the door.", ["reason"])
FAILED = Counter("daogou_vision_embed_failed_items_total", "Crops without an embedding.", ["reason"])
EXPIRED = Counter("daogou_vision_embed_expired_items_total", "Crops whose deadline passed as they waited.")
CANCELLED = Counter("daogou_vision_embed_cancelled_items_total", "Crops whose caller left as they waited.")
BISECTED = Counter("daogou_vision_embed_bisected_batches_total", "Batches that failed and were halved.")
RESTARTS = Counter("daogou_vision_embed_engine_restarts_total", "Times the engine was started again.")
