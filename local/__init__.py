"""For the developer's machine, never in an image: supervisor, demo, MongoDB, keys, tokens, checks."""
