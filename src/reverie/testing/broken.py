"""What a check raises."""

from __future__ import annotations


class BrokenLaw(AssertionError):  # noqa: N818 - it is what it says
    """A law that does not hold: what was expected, and what was found.

    >>> from reverie.testing import BrokenLaw
    >>> issubclass(BrokenLaw, AssertionError)  # a test that meets it fails
    True
    """
