"""The eighty classes of COCO in the order of its detectors, by the names that GenEval's prompts use.

Law of this file: names and their order, nothing else.
"""

from __future__ import annotations

CLASSES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee "
    "skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass "
    "cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop computer_mouse tv_remote computer_keyboard cell_phone microwave "
    "oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
)
"""One word a class; see `names`."""
ALIASES = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
"""COCO's own names of classes that GenEval calls otherwise."""


def names() -> tuple[str, ...]:
    """Return the classes in the order in which COCO's detectors number them, from 0."""
    return tuple(word.replace("_", " ") for word in CLASSES.split())
