"""Where data live: geometry only."""

from reverie.spaces.base import Space as Space
from reverie.spaces.bases import Basis as Basis
from reverie.spaces.bases import Frequencies as Frequencies
from reverie.spaces.bases import Identity as Identity
from reverie.spaces.bases import KarhunenLoeve as KarhunenLoeve
from reverie.spaces.bases import Wavelet as Wavelet
from reverie.spaces.bases import basis_named as basis_named
from reverie.spaces.bounded import Bounded as Bounded
from reverie.spaces.bounded import Intervals as Intervals
from reverie.spaces.divergence import divergence as divergence
from reverie.spaces.euclidean import Euclidean as Euclidean
from reverie.spaces.finite import FiniteSet as FiniteSet
from reverie.spaces.flat import Flat as Flat
from reverie.spaces.functions import Functions as Functions
from reverie.spaces.hyperbolic import Hyperbolic as Hyperbolic
from reverie.spaces.manifold import Manifold as Manifold
from reverie.spaces.mixed import Mixed as Mixed
from reverie.spaces.names import space_named as space_named
from reverie.spaces.product import Product as Product
from reverie.spaces.rotations import Rotations as Rotations
from reverie.spaces.simplex import Simplex as Simplex
from reverie.spaces.sphere import Sphere as Sphere
from reverie.spaces.torus import Torus as Torus
