"""All of the books, computed again and compared. Begin with `servicer_verification`."""
