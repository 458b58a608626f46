"""Seeds: which number starts the noise of which image.

Law of this file: pure arithmetic; the same three values give the same seed on every machine, in
every version of Python and of this package.
"""

from __future__ import annotations

import hashlib


def image_seed(run_seed: int, prompt_id: str, sample: int) -> int:
    r"""Return the seed of one image.

    The first 63 bits of SHA-256 over `run_seed`, `prompt_id` and `sample`, written in decimal and
    UTF-8 and joined by the byte 31 (which keeps ("1", "23") and ("12", "3") apart).

    Args:
        run_seed: Seed of the run, any integer.
        prompt_id: The prompt's id.
        sample: Number of the picture among those of its prompt, from 0.

    Returns:
        An integer in [0, 2**63), fit for `torch.Generator.manual_seed`.
    """
    text = "\x1f".join((str(int(run_seed)), prompt_id, str(int(sample))))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
