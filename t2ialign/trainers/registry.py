"""Which algorithms there are, for the command line.

Law of this file: it imports nothing heavy; an algorithm is named here by the dotted paths of its options and of
its function.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Algorithm:
    """One entry of `t2ialign train ALGO`.

    Attributes:
        name: What the user types.
        help: One line for `--help`.
        config: Dotted path of the options dataclass; its module imports no torch.
        train: Dotted path of `train(config) -> dict`, which runs it and returns the report.
    """

    name: str
    help: str
    config: str
    train: str


ALGORITHMS: dict[str, Algorithm] = {
    "dpo": Algorithm(
        name="dpo",
        help="Diffusion-DPO: follow preference pairs, held to the model they start from",
        config="t2ialign.trainers.dpo_config.DPOConfig",
        train="t2ialign.trainers.dpo.train",
    ),
}
