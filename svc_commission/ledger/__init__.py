"""The ledger: what was posted, what it sums to, and why. Begin with `servicer_ledger`."""
