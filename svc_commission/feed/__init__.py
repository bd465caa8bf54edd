"""Feeds: whose word on a shop's orders counts, and how far it has come. Begin with `servicer_feed`."""
