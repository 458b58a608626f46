"""Whether an annotator is any good: agreement with people or held-out labels, consistency, biases, disagreements.

Law of this room: the unit is the prompt, pictures are matched by the digests of their files, and nothing is said that
an interval does not allow. `coefficients` and `resampling` are pure functions; `sides` reads; `comparing`, `orders`
and `traits` measure; `measuring` puts it together; `words` and `page` show it.
"""
