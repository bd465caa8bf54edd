"""A retail day, played against the real services over their public gRPC: `./daogou demo`.

`stage.py` is what the chapters act through, `chapters.py` tells them in order, `__main__.py` starts the
services and runs it. `tests/e2e` plays the same day and `tests/faults` kills what it runs on.
"""
