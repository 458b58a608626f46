"""How well user embeddings made from a few pairs tell what a user likes, by the kind of their tokens.

    python scripts/study_user_embeddings.py tokens --json docs/results/user_embeddings.json
    python scripts/study_user_embeddings.py embeddings --json docs/results/user_embeddings.json

Users of `mini-user-pairs`, train split alone (the test users are never looked at), in five folds of users. A ridge
regression from embeddings to tastes is fitted on four folds, its strength chosen inside them, and applied to users of
the fifth: `taste` is the cosine of the predicted and the true taste, both less the mean taste of the four folds;
`choices` is the share of the user's other pairs in which the predicted taste prefers the picture that was chosen.
Both are means over users; the intervals resample users.

`tokens` compares kinds of tokens by the number of shots, `embeddings` how many embeddings of each user are fitted on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from t2ialign.data.pairs import load_pairs
from t2ialign.eval.statistics import clustered_bootstrap
from t2ialign.mini import resource
from t2ialign.mini.flags import CONTINENTS, FLAGS
from t2ialign.mini.users import taste
from t2ialign.mini.world import BACKGROUND_COLORS, OBJECT_COLORS, SIZES, parse
from t2ialign.users.clip import ClipExtractor
from t2ialign.users.extractors import unit_tokens
from t2ialign.users.shots import user_rows

Array = npt.NDArray[np.float64]

VALUES = [
    *(("color", value) for value in OBJECT_COLORS),
    *(("background", value) for value in BACKGROUND_COLORS),
    *(("size", value) for value in SIZES),
    *(("continent", value) for value in CONTINENTS),
]
"""What a taste is made of; the order of its numbers."""
STRENGTHS = 10.0 ** np.arange(-2, 5)
SHOTS, EMBEDDINGS, SEEDS = (4, 8, 12), 8, 6
"""Shots an embedding; embeddings of a user; draws of shots and folds."""


def attributes(caption: str) -> Array:
    """Return what a picture has of each value, [V]; utility is its product with a taste."""
    spec, found = parse(caption), np.zeros(len(VALUES))
    if spec.kind == "flag":
        found[VALUES.index(("continent", FLAGS[str(spec.country)].continent))] = 1.0
        return found
    for thing in spec.things:
        found[VALUES.index(("color", str(thing.color)))] += 1 / len(spec.things)
        if thing.size:
            found[VALUES.index(("size", thing.size))] += 1
    found[VALUES.index(("background", str(spec.background)))] = 1.0
    return found


class Material:
    """Tastes, attributes of the pictures, and their states in mini-clip, of all pairs of the train split."""

    def __init__(self) -> None:
        """Read the pairs and run mini-clip once over their pictures."""
        pairs = load_pairs("mini-user-pairs")
        self.rows = [np.array(rows) for rows in user_rows(pairs).values()]
        self.tastes = np.array([[getattr(taste(user), kind)[v] for kind, v in VALUES] for user in user_rows(pairs)])
        captions = [[str(text) for text in pairs.column(f"{side}_prompt")] for side in ("chosen", "rejected")]
        seen = [np.array([attributes(caption) for caption in side]) for side in captions]
        self.attributes = seen[0] - seen[1]
        pictures = [[getattr(pair, side) for pair in pairs] for side in ("chosen", "rejected")]
        clip = ClipExtractor("mini-clip")
        self.chosen, self.rejected = (_in_batches(clip.states, side) for side in pictures)
        self.image_chosen, self.image_rejected = (_in_batches(_image_features(), side) for side in pictures)

    def true_choices(self) -> float:
        """Return the share of choices that the true tastes would have made, a mean over users."""
        gaps = [self.attributes[rows] @ taste for rows, taste in zip(self.rows, self.tastes, strict=True)]
        return float(np.mean([(gap > 0).mean() for gap in gaps]))


def _in_batches(run: Callable[[list[Any]], Tensor], pictures: list[Any]) -> Tensor:
    return torch.cat([run(pictures[start : start + 50]) for start in range(0, len(pictures), 50)])


def _image_features() -> Callable[[list[Any]], Tensor]:
    from transformers import AutoImageProcessor, CLIPModel

    folder = resource("mini-clip")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)

    @torch.inference_mode()
    def run(pictures: list[Any]) -> Tensor:
        seen = model.vision_model(**processor(images=pictures, return_tensors="pt"))
        return torch.nn.functional.normalize(model.visual_projection(seen.pooler_output), dim=-1)

    return run


def kinds(m: Material) -> dict[str, Callable[[npt.NDArray[np.int64]], Tensor]]:
    """Return kinds of embedding: from the positions of the shots to tokens [T, D]."""
    layers = (m.chosen.shape[1] - 1) // 2
    known = torch.from_numpy(m.attributes).float()
    return {
        "attributes read without error (what is possible)": lambda rows: known[rows].mean(0, keepdim=True),
        "image embedding, difference": lambda rows: (m.image_chosen - m.image_rejected)[rows].mean(0, keepdim=True),
        "image embedding, chosen and rejected": lambda rows: torch.stack(
            [m.image_chosen[rows].mean(0), m.image_rejected[rows].mean(0)]
        ),
        "class tokens, votes": lambda rows: unit_tokens((m.chosen - m.rejected)[rows, layers + 1 :]).mean(0),
        "patch means, votes": lambda rows: unit_tokens((m.chosen - m.rejected)[rows, : layers + 1]).mean(0),
        "both, differences": lambda rows: (m.chosen - m.rejected)[rows].mean(0),
        "both, votes (as built)": lambda rows: unit_tokens((m.chosen - m.rejected)[rows]).mean(0),
        "both, votes, with chosen and rejected": lambda rows: torch.cat(
            [
                unit_tokens((m.chosen - m.rejected)[rows]).mean(0),
                m.chosen[rows, -1:].mean(0),
                m.rejected[rows, -1:].mean(0),
            ]
        ),
    }


def ridge(inputs: Array, targets: Array, strength: float) -> Callable[[Array], Array]:
    """Fit a ridge regression with a free constant, by its dual; inputs [N, P], targets [N, V]."""
    mean_in, mean_out = inputs.mean(0), targets.mean(0)
    centred = inputs - mean_in
    dual = np.linalg.solve(centred @ centred.T + strength * np.eye(len(inputs)), targets - mean_out)
    weights = centred.T @ dual
    return lambda other: (other - mean_in) @ weights + mean_out


def chosen_strength(inputs: Array, tastes: Array, users: npt.NDArray[np.int64], rng: np.random.Generator) -> float:
    """Choose the strength with the least squared error over four folds of these users; inputs [U, E, P]."""
    errors = np.zeros(len(STRENGTHS))
    for held in np.array_split(rng.permutation(users), 4):
        kept = np.setdiff1d(users, held)
        for number, strength in enumerate(STRENGTHS * inputs.shape[-1]):
            fitted = fit(inputs, tastes, kept, strength)
            errors[number] += sum(((fitted(inputs[user]) - tastes[user]) ** 2).sum() for user in held)
    return float(STRENGTHS[int(np.argmin(errors))] * inputs.shape[-1])


def fit(inputs: Array, tastes: Array, users: npt.NDArray[np.int64], strength: float) -> Callable[[Array], Array]:
    """Fit on all embeddings of these users."""
    flat = inputs[users].reshape(-1, inputs.shape[-1])
    return ridge(flat, np.repeat(tastes[users], inputs.shape[1], axis=0), strength)


def measure(
    m: Material, kind: Callable[[npt.NDArray[np.int64]], Tensor], shots: int, seed: int, fitted_on: int = EMBEDDINGS
) -> tuple[Array, Array]:
    """Return taste and choices of each user, [U] each, means over the embeddings of the user."""
    rng = np.random.default_rng((seed, shots))
    sets = [[rng.choice(rows, shots, replace=False) for _ in range(EMBEDDINGS)] for rows in m.rows]
    tokens = [[unit_tokens(kind(rows)).flatten().numpy() for rows in each] for each in sets]
    inputs, count = np.array(tokens, dtype=np.float64), len(m.rows)
    likeness, choices = np.zeros(count), np.zeros(count)
    for held in np.array_split(rng.permutation(count), 5):
        kept = np.setdiff1d(np.arange(count), held)
        few = inputs[:, :fitted_on]
        predict = fit(few, m.tastes, kept, chosen_strength(few, m.tastes, kept, rng))
        mean = m.tastes[kept].mean(0)
        for user in held:
            wanted = m.tastes[user] - mean
            for rows, found in zip(sets[user], predict(inputs[user]), strict=True):
                gap = m.attributes[np.setdiff1d(m.rows[user], rows)] @ found
                choices[user] += ((gap > 0) + 0.5 * (gap == 0)).mean() / EMBEDDINGS
                cosine = (found - mean) @ wanted / (np.linalg.norm(found - mean) * np.linalg.norm(wanted))
                likeness[user] += cosine / EMBEDDINGS
    return likeness, choices


def summary(draws: list[tuple[Array, Array]]) -> dict[str, Any]:
    """Return both figures with their intervals over users."""
    found: dict[str, Any] = {}
    for name, number in (("taste", 0), ("choices", 1)):
        values = np.mean([draw[number] for draw in draws], axis=0)
        interval = clustered_bootstrap(values)
        found[name] = {"value": float(values.mean()), "ci95": [interval.low, interval.high], "users": len(values)}
    return found


def main() -> None:
    """Run a study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["tokens", "embeddings"])
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started, material, results = time.monotonic(), Material(), {}
    known = kinds(material)
    if arguments.study == "tokens":
        trials = [(f"{shots} | {name}", name, shots, EMBEDDINGS) for shots in SHOTS for name in known]
    else:
        trials = [
            (f"{n} x {shots} | fitted", "both, votes (as built)", shots, n) for shots in SHOTS for n in (1, 2, 4, 8)
        ]
    print("| shots | tokens | taste | choices |\n|---|---|---|---|")
    for label, name, shots, fitted_on in trials:
        draws = [measure(material, known[name], shots, seed, fitted_on) for seed in range(SEEDS)]
        results[label] = summary(draws)
        cells = (
            "{value:.3f} ({ci95[0]:.3f} to {ci95[1]:.3f})".format(**results[label][k]) for k in ("taste", "choices")
        )
        print(f"| {label} | {' | '.join(cells)} |", flush=True)
    stored = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    stored[arguments.study] = {"seconds": round(time.monotonic() - started), "results": results}
    stored["choices_of_the_true_taste"] = material.true_choices()
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
