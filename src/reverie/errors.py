"""The one exception that reverie raises on bad input."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence: what, where, what then."""
