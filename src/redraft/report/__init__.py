"""Runs for people to look at: statistics, pictures and the demo's page."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
