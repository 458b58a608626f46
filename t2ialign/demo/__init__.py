"""The demo: the whole loop on mini-SD, from packaged pairs to a report with intervals.

Law of this room: it calls the library as the commands do and measures every figure it shows; no
figure is typed in, and no prompt it reports on was seen in tuning or in the choice of settings.
"""
