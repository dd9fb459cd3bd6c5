"""The networks that are ours."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
