"""The section on composition: whether pictures hold what their prompts ask for, part by part.

Law of this file: in the mini-world the oracle reads pictures; of other prompts, those that say what must be seen are
judged by a detector that is named. Without one nothing is measured, and how to get one is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ialign.config import option
from t2ialign.errors import ConfigError
from t2ialign.eval.composition.naming import DetectorName
from t2ialign.eval.suites.findings import Findings, note
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.suites.evidence import Evidence

NAME = "composition"
JUDGES = ("detector", "colors", "classes", "offer", "template", "score", "counting", "overlap")
MEND = (
    "name one with --detector (or detector, under composition in the suite): "
    "zero_shot:google/owlv2-base-patch16-ensemble asks a zero-shot detector of transformers, results:FILE takes "
    "detections that were made elsewhere; the same command then measures this section alone"
)


@dataclass
class Options:
    """What is judged, and by whom."""

    prompts: list[str] = option([], "Prompt sets; all where none is named.")
    detector: str = option(
        "auto",
        "Who finds objects: oracle, zero_shot:MODEL, results:FILE; auto is the oracle in the mini-world, else nobody.",
    )
    colors: str = option(
        "auto", "Who names colours: a CLIP scorer; auto is the detector where it knows them, else clipscore."
    )
    classes: str | None = option(
        None, "results: file with a class a line, where labels are numbers. Default: COCO's eighty."
    )
    offer: str = option(
        "set",
        "zero_shot: a picture is asked for the classes of all prompts of its set, or of its own prompt.",
        choices=("set", "prompt"),
    )
    template: str = option("a photo of a {name}", "zero_shot: how a class is said.")
    score: float | None = option(None, "A detection must be surer than this. Default: 0.3, GenEval's.")
    counting: float | None = option(
        None, "The same for counting. Default: 0.9 with results, GenEval's; else as for all tasks."
    )
    overlap: float = option(1.0, "Two of a class that overlap by this much are one; 1 for none, as GenEval.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        DetectorName.read(self.detector)
        for name in ("score", "counting", "overlap"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; it must lie in [0, 1]")
        if self.overlap == 0:
            raise ConfigError("overlap is 0; it must be above 0, and 1 for none")
        if self.template.count("{name}") != 1:
            raise ConfigError(f"template is {self.template!r}; it must have {{name}} once, where the class goes")


def identity(options: Options) -> dict[str, Any]:
    """Say who judges; empty for the oracle where it is the default."""
    from pathlib import Path

    from t2ialign.config import to_dict
    from t2ialign.data.sources import content_hash

    told = {key: value for key, value in to_dict(options).items() if key in JUDGES}
    if told == {key: value for key, value in to_dict(Options()).items() if key in JUDGES}:
        return {}
    found = told | DetectorName.read(options.detector).identity()
    if options.classes is not None:
        if not (file := Path(options.classes).expanduser()).is_file():
            raise ConfigError(f"there is no file of classes {options.classes!r}")
        found["classes"] = content_hash([file])
    return found


def measure(evidence: Evidence, options: Options) -> Findings:
    """Judge every picture, by the oracle or by a detector."""
    from t2ialign.eval.suites.sections import composition_oracle, composition_tasks

    wanted = DetectorName.read(options.detector)
    sets = evidence.sets(options.prompts)
    mini = [name for name in sets if not evidence.oracle_world(name)] if wanted.kind == "auto" else []
    tasks = {name: composition_tasks.tasks_of(evidence, name, wanted.kind) for name in sets if name not in mini}
    asked = {name: found for name, found in tasks.items() if found}
    definition = composition_oracle.DEFINITION if mini else composition_tasks.DEFINITION
    findings = Findings(NAME, SECTIONS[NAME], definition=definition)
    for prompts in mini:
        composition_oracle.by_oracle(findings, evidence, prompts)
    if not mini and not asked:
        reason = (
            "no prompt says what must be seen (include, as in GenEval's evaluation_metadata.jsonl), and "
            f"{evidence.oracle_world(sets[0]) or 'none has a task in the mini-world'}"
        )
        return Findings.absent(NAME, SECTIONS[NAME], reason, definition)
    lacking = ""
    if asked and wanted.kind == "auto":
        lacking = f"no detector is named, and the prompts of {' and '.join(asked)} take one; {MEND}"
    elif asked:
        lacking = composition_tasks.by_detector(findings, evidence, options, asked)
    if lacking and not findings.rows:
        return Findings.lacking(NAME, SECTIONS[NAME], lacking, definition)
    if lacking:
        findings.blocks.append(note(f"Not measured: {lacking}."))
    return findings
