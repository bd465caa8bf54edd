"""The door that knows the staff, and the clock behind it: faces, doors, attendance.

What is decided stands in `rules`, pure: `track` (what the frames of one face allow), `door_policy` (who may
pass which door when), `door_session` (an OPEN cannot come late), `offline_snapshot`, `freshness`, `consent`.
"""
