"""What a sweep is: settings that every model's pictures are made at once more, for the section on trade-offs.

Law of this file: no heavy library is imported here, for the command line reads it to print its help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from t2ialign.config import option
from t2ialign.errors import ConfigError


@dataclass
class SweepOptions:
    """Settings to be swept over; all combinations of them, for each model, beside the suite's own settings."""

    guidance_scale: list[float] = option([], "Guidance scales, such as 1.5,3,7.5.")
    num_inference_steps: list[int] = option([], "Numbers of denoising steps.")
    checkpoints: int = option(0, "The newest so many checkpoints of every model that is a run with LoRA.")
    prompts: str | None = option(
        None, "Prompt set, with several pictures of each prompt. Default: the first of the section tradeoff."
    )
    limit: int | None = option(None, "At most so many of its prompts.")
    images_per_prompt: int | None = option(None, "Pictures of each prompt, the first of those of the suite.")

    @property
    def asked(self) -> bool:
        """Whether there is anything to sweep over."""
        return bool(self.guidance_scale or self.num_inference_steps or self.checkpoints)

    def over(self, other: SweepOptions) -> SweepOptions:
        """Return the options with what this one says laid over the other."""
        usual = SweepOptions()
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(usual, f.name)}
        return replace(other, **said)

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for scale in self.guidance_scale:
            if not 0 <= scale < math.inf:
                raise ConfigError(f"guidance_scale of the sweep is {scale}; it must be 0 or more")
        for steps in self.num_inference_steps:
            if steps < 1:
                raise ConfigError(f"num_inference_steps of the sweep is {steps}; it must be at least 1")
        for name in ("guidance_scale", "num_inference_steps"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} of the sweep is {', '.join(map(str, values))}; give each value once")
        if self.checkpoints < 0:
            raise ConfigError(f"checkpoints of the sweep is {self.checkpoints}; it must be 0 or more")
        if self.limit is not None and self.limit < 2:
            raise ConfigError(f"limit of the sweep is {self.limit}; it takes at least 2 prompts")
        if self.images_per_prompt is not None and self.images_per_prompt < 2:
            raise ConfigError(
                f"images_per_prompt of the sweep is {self.images_per_prompt}; diversity takes at least 2"
            )
