"""Spend a budget, yield drafts; one file for each paper."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
