"""What the command line runs, beside the recipes of `redraft.training`."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
