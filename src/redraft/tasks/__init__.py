"""Problems and their exact metrics."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
