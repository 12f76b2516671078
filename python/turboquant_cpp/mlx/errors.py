class PromptCacheMismatch(ValueError):
    """A saved cache that this library, or the model it is given to, cannot go on with."""

    def __init__(self, field, found, expected):
        super().__init__(f"prompt cache: {field} is {found!r}; expected {expected!r}")
        self.field = field
        self.found = found
        self.expected = expected
