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
        guided: Whether `train` is handed the scorers `config.scorer` and `config.watch` besides.
    """

    name: str
    help: str
    config: str
    train: str
    guided: bool = False


ALGORITHMS: dict[str, Algorithm] = {
    "dpo": Algorithm(
        name="dpo",
        help="Diffusion-DPO: follow preference pairs, held to the model they start from",
        config="t2ialign.trainers.dpo_config.DPOConfig",
        train="t2ialign.trainers.dpo.train",
    ),
    "mapo": Algorithm(
        name="mapo",
        help="MaPO: follow preference pairs without any reference model",
        config="t2ialign.trainers.mapo_config.MaPOConfig",
        train="t2ialign.trainers.mapo.train",
    ),
    "dcpo": Algorithm(
        name="dcpo",
        help="DCPO: Diffusion-DPO with a caption for each picture of a pair",
        config="t2ialign.trainers.dcpo_config.DCPOConfig",
        train="t2ialign.trainers.dcpo.train",
    ),
    "ppd": Algorithm(
        name="ppd",
        help="PPD: follow each user's own preferences, by a user adapter",
        config="t2ialign.trainers.ppd_config.PPDConfig",
        train="t2ialign.trainers.ppd.train",
    ),
    "sft": Algorithm(
        name="sft",
        help="supervised fine-tuning on the pictures that are wanted",
        config="t2ialign.trainers.sft_config.SFTConfig",
        train="t2ialign.trainers.sft.train",
    ),
    "kto": Algorithm(
        name="kto",
        help="Diffusion-KTO: learn from pictures labelled good or bad, without partners",
        config="t2ialign.trainers.kto_config.KTOConfig",
        train="t2ialign.trainers.kto.train",
    ),
    "refl": Algorithm(
        name="refl",
        help="ReFL and DRaFT: raise a scorer by its gradient through the last denoising steps",
        config="t2ialign.trainers.refl_config.ReFLConfig",
        train="t2ialign.trainers.refl.train",
        guided=True,
    ),
    "ddpo": Algorithm(
        name="ddpo",
        help="DDPO: raise any scorer by a policy gradient over the chain of denoising",
        config="t2ialign.trainers.ddpo_config.DDPOConfig",
        train="t2ialign.trainers.ddpo.train",
        guided=True,
    ),
    "reward": Algorithm(
        name="reward",
        help="a scorer: PickScore's criterion, rankings, aspects, users (PAL), cyclic preferences",
        config="t2ialign.reward_models.training.config.RewardConfig",
        train="t2ialign.reward_models.training.trainer.train",
    ),
}
