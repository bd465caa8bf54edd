"""The embedder: aligned faces in, embeddings out, nothing else. `python -m svc_vision.embedder`, near a GPU.

Needs no database. Begin with `batching`, which does with crops what rules/batcher.py decides; `supervision`
keeps an engine running for it.
"""
