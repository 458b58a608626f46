"""Labels by people: a page on 127.0.0.1 where a person picks the better of two pictures.

Law of this room: an answer is on disk before the next pair is shown; which pair and which side is a function of the
seed, the user and the set; the page learns nothing of a picture but what it shows, and nobody else learns anything.
"""
