"""The directory: brands, regions, stores, guides and where they have stood. Begin with `entities`."""
