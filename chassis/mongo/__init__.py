"""MongoDB as every service uses it: `connection` first, then `idempotency` and `transaction`."""
