"""Manifolds by name: `space_named(repr(space))` is the same space again."""

from __future__ import annotations

import ast

from reverie.errors import InputError
from reverie.spaces.flat import Flat
from reverie.spaces.hyperbolic import Hyperbolic
from reverie.spaces.manifold import Manifold
from reverie.spaces.product import Product
from reverie.spaces.rotations import Rotations
from reverie.spaces.sphere import Sphere
from reverie.spaces.torus import Torus

MANIFOLDS = {kind.__name__: kind for kind in (Sphere, Torus, Rotations, Hyperbolic, Flat)}


def space_named(name: str) -> Manifold:
    """The manifold of a name like "Sphere(2)" or "Product(Sphere(2), Torus(3))".

    Raises InputError on anything else.

    >>> from reverie.spaces import space_named
    >>> space_named("Product(Sphere(2), Torus(3))").shape
    (6,)
    """
    try:
        return _build(ast.parse(name, mode="eval").body)
    except (SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        known = ", ".join([*MANIFOLDS, "Product"])
        raise InputError(
            f"no space is called {name!r}; write one of {known} with its dimension, as Sphere(2)"
        ) from None


def _build(node: ast.expr) -> Manifold:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords:
        raise ValueError
    kind, arguments = node.func.id, node.args
    if kind == "Product":
        return Product(*(_build(part) for part in arguments))
    if kind not in MANIFOLDS or len(arguments) != 1:
        raise ValueError
    size = ast.literal_eval(arguments[0])
    if not isinstance(size, int):
        raise ValueError
    return MANIFOLDS[kind](size)
