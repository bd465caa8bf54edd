"""The door that knows the staff, and the clock behind it: faces, doors, attendance.

What is decided stands in `rules`, pure. Of doors: `track` (what the frames of one face allow), `door_policy`
(who may pass which door when), `door_session` (an OPEN cannot come late), `offline_snapshot`, `freshness`,
`consent`. Of the clock: `attendance`. Of the machine: `batcher`. `recognition` makes vectors of pictures,
`embedder` is the process that does it for many doors at once, `attendance` writes the month's report.
"""
