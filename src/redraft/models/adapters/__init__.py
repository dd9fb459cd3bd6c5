"""Networks of other libraries as `TokenModel`s: each adapter states one call convention."""
