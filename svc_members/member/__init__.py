"""Members: who they are, by which identities, merged, exported, erased. Begin with `member_document`."""
