"""A network with its process and its codec; one file for each family."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
