"""Whether training and held-out rows may be compared at all."""
