"""Networks of other libraries as `TokenModel`s: each adapter states one call convention."""

from redraft.core.lazy import attributes

__getattr__ = attributes(__name__)
