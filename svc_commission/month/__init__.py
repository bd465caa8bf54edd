"""Months: which is open, closed once, with a statement for every payee. Begin with `closing`."""
