"""State, streams, ledger, run loop, result."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
