"""Orders: their events taken in, attributed, booked. Begin with `ingest`."""
