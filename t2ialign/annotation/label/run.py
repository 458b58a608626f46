"""`t2ialign label`: from a set to labelled pairs, with a person in between.

Law of this file: whatever ends it, the page's button, Ctrl-C or a kill, what was answered is there.
"""

from __future__ import annotations

import hashlib
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from t2ialign.annotation.label.answers import AnswerLog
from t2ialign.annotation.label.folder import PairFolder
from t2ialign.annotation.label.options import LabelOptions
from t2ialign.annotation.label.questions import Question, ask_order
from t2ialign.annotation.label.server import LabelServer
from t2ialign.annotation.label.session import Session
from t2ialign.annotation.label.sources import Source, open_source
from t2ialign.data.sources import local_path
from t2ialign.engine.signals import StopSignal
from t2ialign.errors import ConfigError, DataError, Stopped

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelSummary:
    """What a person has said so far, earlier runs included.

    Attributes:
        output_dir: Folder of the pairs.
        user: Who it was.
        preferred: Pairs of which one picture is better.
        ties: Pairs of which none is.
        skipped: Questions that were skipped.
        asked: Questions of this person that were answered or skipped, of those that there are now.
        total: Questions that there are.
        passed_over: Questions that could not be asked, by reason.
    """

    output_dir: Path
    user: str
    preferred: int
    ties: int
    skipped: int
    asked: int
    total: int
    passed_over: dict[str, int]

    def lines(self) -> list[str]:
        """Say it for people."""
        told = [
            f"{self.user}: {self.preferred} preferred, {self.ties} ties, {self.skipped} skipped; "
            f"{self.asked} of {self.total} questions",
            f"{self.output_dir}",
        ]
        if self.passed_over:
            why = ", ".join(f"{reason} {count}" for reason, count in sorted(self.passed_over.items()))
            told.insert(1, f"passed over: {why}")
        return told


def open_session(options: LabelOptions) -> tuple[Session, AnswerLog]:
    """Open the set, the folder and the person's log; the log is held until it is closed.

    Raises:
        ConfigError: If the output is the set itself, or inside of it.
        DataError: If the set can not be read or asks nothing, the folder holds something else, or this person has
            answered about other pictures of the same names.
    """
    _check_place(options)
    source = open_source(options.images, options.split, options.revision)
    questions = ask_order(
        source.couples(), options.seed, options.user, per_prompt=options.pairs_per_prompt, limit=options.limit
    )
    if not questions:
        raise DataError(f"{source.name} has no prompt with two pictures; generate with --images_per_prompt 2 or more")
    folder = PairFolder(options.output_dir)
    settings = {"set": source.name, "seed": options.seed, "aspect": options.aspect, "question": options.question}
    log = AnswerLog(folder.path, options.user, settings)
    try:
        _check_pictures(source, questions, log)
        folder.publish()  # what a kill between an answer and its pair has left undone
        return Session(source, folder, log, questions, user=options.user, ask=options.question), log
    except BaseException:
        log.close()
        raise


def label(options: LabelOptions, on_start: Callable[[str], None] = logger.info) -> LabelSummary:
    """Serve the page until the person has finished or Ctrl-C is pressed; this is how it ends, not a stop.

    Args:
        options: See `LabelOptions`.
        on_start: Is told the address once the page can be opened.

    Returns:
        What was said so far.

    Raises:
        ConfigError: As `open_session`, or if the port is taken.
        DataError: As `open_session`.
        Stopped: If SIGTERM or SIGUSR1 asks for it.
    """
    session, log = open_session(options)
    with log, StopSignal() as stop, LabelServer(session, options.port) as server:
        server.service_actions = stop.check  # type: ignore[method-assign]
        on_start(server.url)
        try:
            server.serve_forever(poll_interval=0.1)
        except Stopped as stopped:
            if stopped.number != signal.SIGINT:
                raise Stopped(
                    stopped.number, f"every answer is in {options.output_dir}; the same command goes on"
                ) from None
            logger.info("stopped; the same command goes on")
        counts, state = session.counts(), session.state()
    return LabelSummary(
        output_dir=options.output_dir,
        user=options.user,
        preferred=counts["left"] + counts["right"],
        ties=counts["tie"],
        skipped=counts["skip"],
        asked=state["answered"],
        total=state["total"],
        passed_over=dict(session.passed_over),
    )


def _check_pictures(source: Source, questions: Sequence[Question], log: AnswerLog) -> None:
    """Refuse a set that was made anew under its name: its questions would count as answered."""
    couples = {question.id: question.couple for question in questions}
    for name, answer in log.standing.items():
        said = {answer.left: answer.left_sha256, answer.right: answer.right_sha256}
        couple = couples.get(name)
        for place, picture in enumerate(() if couple is None else couple.names):
            assert couple is not None
            before, now = said.get(picture), couple.sha256[place]
            if not before or not now or before == now:
                continue
            if hashlib.sha256(source.encoded(couple, place)).hexdigest() != before:
                raise DataError(
                    f"{log.path} has an answer about another picture than {source.name}/{picture} is now; give "
                    "another --user or another --output_dir"
                )


def _check_place(options: LabelOptions) -> None:
    path = local_path(options.images)
    if path is None:
        return
    there, target = path.resolve(), options.output_dir.resolve()
    if target == there or target in there.parents or there in target.parents:
        raise ConfigError(
            f"output_dir {options.output_dir} and the set {path} lie in each other; choose another folder"
        )
