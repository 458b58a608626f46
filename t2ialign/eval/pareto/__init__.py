"""Pareto fronts: which settings of a model give the most consistency, diversity and realism that can be had together.

    from t2ialign.eval.pareto import Axis, Point, pareto_front
    front = pareto_front(points, [Axis("consistency"), Axis("diversity")])
    front.write(folder)                       # pareto.json, pareto.csv, pareto.svg

Law of this room: points are compared on the same prompts; whether a point lies on the front is a finding with a
probability, since its values are estimates.
"""

from t2ialign.eval.pareto.dominance import hypervolume, non_dominated
from t2ialign.eval.pareto.front import Axis, Front, FrontPoint, Point, pareto_front
from t2ialign.eval.pareto.plot import front_svg
from t2ialign.eval.pareto.reach import Reach, reaches
from t2ialign.eval.pareto.sweep import points_of_sets

__all__ = [
    "Axis",
    "Front",
    "FrontPoint",
    "Point",
    "Reach",
    "front_svg",
    "hypervolume",
    "non_dominated",
    "pareto_front",
    "points_of_sets",
    "reaches",
]
