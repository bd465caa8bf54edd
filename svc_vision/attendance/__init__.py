"""Attendance: month reports. What the punches of somebody say of her shifts stands in `rules/attendance`."""
