"""Advantages: scores against those of other pictures of the same prompt (arXiv 2305.13301, section 4.4).

    A = (r - mean) / (deviation + 1e-6)

over the last scores of the prompt once there are enough of them, over all scores of the round until then.

Law of this file: a function of the scores in the order of their pictures' numbers; what was not scored (NaN) counts
nowhere and has advantage 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-6


class RunningStatistics:
    """The last scores of each prompt.

    Args:
        prompts: How many there are.
        size: Scores remembered of each; 0 for none.
        enough: Scores from which on a prompt's own count.

    Attributes:
        table: `[prompts, size]` float64, the newest last, NaN where there is none.
    """

    def __init__(self, prompts: int, size: int, enough: int) -> None:
        self.table = torch.full((prompts, size), torch.nan, dtype=torch.float64)
        self.enough = enough

    def advantages(self, entries: Tensor, scores: Tensor) -> Tensor:
        """Remember the scores of a round and return their advantages.

        Args:
            entries: Number of each picture's prompt, `[N]` int64.
            scores: `[N]`.

        Returns:
            float64 `[N]`.
        """
        scores = scores.double()
        everyone = scores[~scores.isnan()]
        found = torch.zeros_like(scores)
        for entry in entries.unique().tolist():
            mine = entries == entry
            own = self._remember(entry, scores[mine])
            known = own if len(own) >= self.enough else everyone
            if len(known):
                found[mine] = (scores[mine] - known.mean()) / (known.std(correction=0) + _TINY)
        return found.nan_to_num(0.0)

    def _remember(self, entry: int, scores: Tensor) -> Tensor:
        """Return all that is now known of a prompt."""
        row = torch.cat([self.table[entry], scores])
        row = row[~row.isnan()]
        size = self.table.shape[1]
        if not size:
            return row[:0]
        row = row[-size:]
        self.table[entry] = torch.nan
        if len(row):
            self.table[entry, -len(row) :] = row
        return row
