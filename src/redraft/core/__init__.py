"""State, streams, ledger, run loop, result."""
