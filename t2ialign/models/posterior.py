"""What a VAE sees in pictures: a normal distribution for each number of the latents, not scaled yet.

Law: it is kept in the number format that the VAE worked in, and scaled when it is asked for latents, in float32. So a
posterior that was stored and read back gives the same bits as one that was just computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Posterior:
    """The posterior of pictures.

    Attributes:
        mean: `[B, C, h, w]`.
        std: Deviation, `[B, C, h, w]`; None where only the mean was kept.
        shift: Is taken off the latents,
        scale: and they are multiplied by this: `shift_factor` and `scaling_factor` of the VAE's configuration.
    """

    mean: Tensor
    std: Tensor | None
    shift: float
    scale: float

    def latents(self, noise: Tensor | None = None) -> Tensor:
        """Return (mean + std * noise - shift) * scale, `[B, C, h, w]` float32; without noise the mean's.

        Args:
            noise: Unit normal noise `[B, C, h, w]`.

        Raises:
            ValueError: if there is noise and only the mean was kept.
        """
        found = self.mean.float()
        if noise is not None:
            if self.std is None:
                raise ValueError("only the mean of this posterior was kept; it can not be sampled")
            found = found + self.std.float() * noise.to(found)
        scaled: Tensor = (found - self.shift) * self.scale
        return scaled
