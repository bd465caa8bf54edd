"""Care of members: profile, tags, consents, follow-up, search. Begin with `care`."""
