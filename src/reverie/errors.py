"""The one exception that reverie raises on bad input."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence: what, where, what then.

    >>> from reverie import InputError, predict
    >>> try:
    ...     predict([[1.0, 2.0]])
    ... except InputError as error:
    ...     print(error)
    the array has 1 row(s); at least 4 are needed
    """
