"""Columns of numbers, times, categories and text as coordinates in which lengths mean the same."""
