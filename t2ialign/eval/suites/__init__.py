"""Suites: which prompts, how many pictures, which scorers and which sections; and the run that fills a report.

Law of this room: what is there is not made again, and nothing is loaded to find that out. A section either
measures or says why it does not apply; it never fills in.
"""
