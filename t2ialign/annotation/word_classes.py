"""Word classes: which words of an English caption may stand for one another.

Law of this file: a word is in one class at most; the words of a class fit into the same place of a sentence.
"""

from __future__ import annotations

CLASSES: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "colours": "red orange yellow green blue purple pink brown black white gray golden silver turquoise",
        "numbers": "one two three four five six seven eight nine ten",
        "sizes": "small large tiny huge little big giant miniature",
        "extents": "tall short long wide narrow",
        "sides": "left right",
        "ends": "top bottom",
        "levels": "upper lower",
        "planes": "foreground background",
        "places of one thing to another": "above below behind beside under beneath inside outside",
        "company": "with without",
        "shapes": "circle square triangle rectangle hexagon",
        "roundness": "round rectangular triangular oval",
        "ages of things": "old new ancient modern medieval futuristic",
        "ages of people": "young elderly",
        "warmth": "hot cold warm icy",
        "light": "bright dark dim",
        "hours": "morning noon evening night dawn dusk sunrise sunset midnight",
        "weather": "sunny rainy cloudy foggy snowy stormy windy misty",
        "seasons": "summer autumn winter springtime",
        "materials": "wooden metallic glass stone plastic paper ceramic marble leather velvet",
        "amounts": "many few several",
        "animals": "dog cat horse cow sheep bird lion tiger bear elephant rabbit fox wolf frog owl dragon",
        "animals, many": "dogs cats horses cows birds lions tigers bears elephants rabbits foxes wolves owls dragons",
        "people": "man woman boy girl child robot knight wizard king queen",
        "people, many": "men women boys girls children robots knights wizards",
        "landscapes": "beach forest desert mountain valley river lake ocean meadow jungle",
        "built places": "city village street castle bridge garden kitchen library temple tower",
        "vehicles": "car truck bus train bicycle motorcycle boat ship airplane helicopter",
        "media": "photo photograph painting drawing sketch sculpture illustration",
        "fruit": "apple banana pear lemon cherry strawberry peach",
        "flowers": "rose tulip sunflower lily orchid",
        "faces": "smiling crying frowning laughing",
        "postures": "standing sitting lying kneeling",
        "motions": "running walking jumping swimming flying dancing climbing",
        "moods": "happy sad angry calm",
        "surfaces": "smooth rough shiny dusty",
    }.items()
}
"""The classes by name. Antonyms and companions, not synonyms: a changed caption says something else."""

CLASS_OF: dict[str, str] = {word: name for name, words in CLASSES.items() for word in words} | {"grey": "colours"}

ADDED = ("sizes", "colours", "ages of things")
"""Classes of words that can be put before nearly any noun, in the order in which they are added."""

_FUNCTION_WORDS = """
a an the of in on at to from by for and or but nor as into onto over up down off out near next through across front
is are was were be been being am has have had do does did can could will would may might must shall should s
it its he she they his her hers their theirs him them this that these those there here which who whom whose what
where when while than then so not no all each every some any both very more most other another such
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that hold a sentence together and are left alone."""
