"""Experiments: a file names a grid, cells of it run anywhere, and a report compares methods at equal compute."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
