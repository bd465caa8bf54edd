"""Imports the order exports of Taobao and Tmall shops: `./daogou import-orders`.

`columns` says which column becomes what, `forms` reads one cell, `rows` makes order events of rows; all three
are pure. `files` reads CSV as it is found in the wild, `sending` brings the events in, `__main__` shows it.
"""
