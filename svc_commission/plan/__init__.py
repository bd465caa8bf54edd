"""Plans: published once, then in force for their interval. Begin with `plans`."""
