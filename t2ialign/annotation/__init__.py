"""Annotation: words about pictures, made by models or by rule.

Law of this room: what a model said is kept as it comes, so that work that was stopped is paid for once; what could not
be had is counted, and what becomes of it is the user's choice.

* `captioners`, `perturbers`: who writes a caption, and who changes one
* `annotate`: pictures rated on four aspects, by `annotators`, laid before them as `sheets`
* `dual_captions`: a caption a side for a set of pairs (DCPO, arXiv 2502.06023)
"""
