"""What the vision service decides, without I/O.

Of doors `door_policy` first, then `track` and `door_session`. Of shifts and punches `attendance`.
"""
