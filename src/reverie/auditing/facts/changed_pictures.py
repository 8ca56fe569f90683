from __future__ import annotations
def changed_pictures(space, equal, *, products=False):
    return []
