"""Plans that nobody has published, tried on real orders. Begin with `servicer_simulation`."""
