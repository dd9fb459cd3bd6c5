"""Recipes for the reference networks."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
