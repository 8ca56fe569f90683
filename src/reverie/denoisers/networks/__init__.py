"""Guesses that are trained, and the conditions they are told."""
