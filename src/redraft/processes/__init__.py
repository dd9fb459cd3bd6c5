"""Forward noising and reverse steps, without a network."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
