"""Bindings: asked for, watched, corrected, kept alive and lapsed. Begin with `rules.binding`."""
