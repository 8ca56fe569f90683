"""Where data live: geometry only."""

from reverie.spaces.euclidean import Euclidean as Euclidean
