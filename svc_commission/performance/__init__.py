"""Sales performance: what stores, guides and the brand sold. Begin with `servicer_performance`."""
