"""Reward models: one file a scorer, one interface, one pass over an image set.

Law of this room: a score depends on its prompt and its picture alone, never on what stands beside
them in a batch, and every scorer says in `info()` exactly what it computed and with which weights.
"""
