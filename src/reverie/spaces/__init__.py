"""Where data live: geometry only."""

from reverie.spaces.base import Space as Space
from reverie.spaces.euclidean import Euclidean as Euclidean
from reverie.spaces.finite import FiniteSet as FiniteSet
