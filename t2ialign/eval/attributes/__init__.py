"""Attribute diversity: which values of its attributes does a model give a concept, and how evenly? (GRADE).

    from t2ialign.eval.attributes import ChatAnswers, measure_attributes, read_concepts
    result = measure_attributes(image_set, read_concepts("concepts.yaml"), ChatAnswers(chat))
    result.mean, result.defaults

After R. Rassin and others, GRADE (arXiv 2410.22592): attributes by a language model, answers by visual question
answering, normalised entropy. Law of this room: what nobody could answer is counted and is in no distribution.
"""

from t2ialign.eval.attributes.answers import OTHER, Answers, ChatAnswers, OracleAnswers
from t2ialign.eval.attributes.concepts import Attribute, Concept, mini_concepts, propose_concepts, read_concepts
from t2ialign.eval.attributes.entropy import EntropyEstimate, estimate_entropy
from t2ialign.eval.attributes.measure import AttributeScore, AttributesResult, Default, measure_attributes
from t2ialign.eval.attributes.rows import write_rows

__all__ = [
    "OTHER",
    "Answers",
    "Attribute",
    "AttributeScore",
    "AttributesResult",
    "ChatAnswers",
    "Concept",
    "Default",
    "EntropyEstimate",
    "OracleAnswers",
    "estimate_entropy",
    "measure_attributes",
    "mini_concepts",
    "propose_concepts",
    "read_concepts",
    "write_rows",
]
