"""Where data live: geometry only."""

from reverie.spaces.base import Space as Space
from reverie.spaces.divergence import divergence as divergence
from reverie.spaces.euclidean import Euclidean as Euclidean
from reverie.spaces.finite import FiniteSet as FiniteSet
from reverie.spaces.flat import Flat as Flat
from reverie.spaces.hyperbolic import Hyperbolic as Hyperbolic
from reverie.spaces.manifold import Manifold as Manifold
from reverie.spaces.names import space_named as space_named
from reverie.spaces.product import Product as Product
from reverie.spaces.rotations import Rotations as Rotations
from reverie.spaces.simplex import Simplex as Simplex
from reverie.spaces.sphere import Sphere as Sphere
from reverie.spaces.torus import Torus as Torus
