"""The report of a suite: one HTML file that needs no network, from `report.json` and the pictures.

Law of this room: it computes nothing that is concluded from. Every figure that it shows has a row in
`rows.parquet`, and shows which.
"""
