"""Rows that stay on disk and are read in pieces: arrays, tables, pictures and shards of them."""
