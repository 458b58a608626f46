"""Evaluation: statistics and comparisons of scored image sets.

Law of this room: the unit is the prompt. Whatever several pictures of one prompt say is averaged
first; intervals and tests then treat prompts, and nothing smaller, as independent.
"""
