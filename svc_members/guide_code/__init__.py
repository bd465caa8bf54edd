"""Guide codes: signed, drawn, revoked, scanned. Begin with `rules.guide_code`."""
