"""Density, entropy, mutual information and bounds, read off denoisers, in nats."""
