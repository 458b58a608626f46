"""Preference pairs, labelled pictures, image sets and prompt files: formats, importers, checks.

Law of this room: nothing is decoded before it is asked for, nothing is dropped without being counted, no path leaves
the folder it belongs to, and every file is written aside and renamed, so that a reader never meets half of one.
"""
