"""What the vision service decides, without I/O: of doors `door_policy` first, then `track` and `door_session`."""
