"""Tests with exact nulls, and their power."""
