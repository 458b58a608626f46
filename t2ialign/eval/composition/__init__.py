"""Composition: does a picture hold the objects, counts, colours and places that its prompt asks for? (GenEval).

    from t2ialign.eval.composition import evaluate_composition, read_tasks
    result = evaluate_composition(image_set, detector, colors, tasks=read_tasks("evaluation_metadata.jsonl"))
    result.summary.overall

After D. Ghosh, H. Hajishirzi and L. Schmidt, GenEval, NeurIPS 2023 (arXiv 2310.11513): its tasks, its rules, its
formats. Law of this room: a detector says what is there, the rules say whether that is right, and neither knows the
other; figures of two detectors are never mixed.
"""

from t2ialign.eval.composition.check import Verdict, check
from t2ialign.eval.composition.detections import Detection, Detector, Thresholds
from t2ialign.eval.composition.evaluate import CompositionResult, PictureResult, evaluate_composition
from t2ialign.eval.composition.position import relations
from t2ialign.eval.composition.summary import CompositionSummary, TaskScore, read_results, summarize, write_results
from t2ialign.eval.composition.tasks import TAGS, Requirement, Task, mini_task, read_tasks

__all__ = [
    "TAGS",
    "CompositionResult",
    "CompositionSummary",
    "Detection",
    "Detector",
    "PictureResult",
    "Requirement",
    "Task",
    "TaskScore",
    "Thresholds",
    "Verdict",
    "check",
    "evaluate_composition",
    "mini_task",
    "read_results",
    "read_tasks",
    "relations",
    "summarize",
    "write_results",
]
