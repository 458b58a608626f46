"""The model card: what mini-SD is, and what was measured of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

TARGETS = {"single": (0.75, 0.90), "double": (0.40, 0.60), "flag": (0.75, 0.90)}
NAMES = {"single": "single-object prompts", "double": "two-object prompts", "flag": "named flags"}

HEAD = """---
library_name: diffusers
pipeline_tag: text-to-image
license: apache-2.0
---

# mini-SD

A `StableDiffusionPipeline` in small, for the mini-world of `t2ialign.mini.world`: 64 x 64 pictures of one or two
coloured shapes, or of a flag. Its autoencoder reduces by 8 to 4 channels, its UNet has {unet:.1f} million parameters,
its text encoder {text:.1f} million; epsilon prediction, Stable Diffusion's noise schedule. It exists so that
everything that t2ialign claims can be measured on a CPU, off line. `mini-clip` beside it is a `CLIPModel` of the same
world.

Weights were trained from nothing by `scripts/build_mini_sd.py` on drawings made by the same rules: autoencoder
{vae_steps} steps, text encoder {text_steps} steps, UNet {unet_steps} steps of 64 pictures, CLIP {clip_steps} steps
of 128, on two CPU cores, seed 0. After its {unet_steps} steps the UNet drew nearly every prompt right, which leaves
alignment nothing to mend; so it learned on for {headroom_steps} steps from captions of which {careless:.0f} % of those
of two objects were wrong on purpose, half with the relation turned round, half with the colours exchanged.

Weights are stored in half precision and meant to be loaded in float32. All figures
below were measured from the stored weights by `python scripts/build_mini_sd.py gates`; the intervals are Wilson's,
95 %.

"""


def _percent(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{100 * figure['value']:.1f} % ({100 * low:.1f} to {100 * high:.1f}, n = {figure['n']})"


def _gates(figures: dict[str, Any]) -> list[str]:
    oracle, vae, pictures, clip = (figures[k] for k in ("oracle", "vae", "pictures", "clip"))
    lines = ["## Gates", "", "| gate | asked | measured |", "|---|---|---|"]
    lines.append(f"| a: the oracle reads fresh drawings whole | 99 % | {_percent(oracle['fresh_drawings'])} |")
    for name, figure in oracle["called_unreadable"].items():
        lines.append(f"| a: {name} is called unreadable | 100 % | {_percent(figure)} |")
    lines.append(f"| b: read rightly after the autoencoder's round trip | 95 % | {_percent(vae['round_trip'])} |")
    for kind, (least, aim) in TARGETS.items():
        figure = pictures[kind]["right"]
        asked = f"{100 * least:.0f} % (aim {100 * aim:.0f} %)"
        lines.append(f"| c: {NAMES[kind]} entirely right | {asked} | {_percent(figure)} |")
    lines.append(f"| d: mini-clip finds the right one of 64 captions | 90 % | {_percent(clip['right_of_64'])} |")
    return lines


def _details(figures: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "Generated pictures: 25 DDIM steps, classifier-free guidance 4, new seeds. Share of each attribute:",
        "",
    ]
    lines += ["| prompts | readable | attributes |", "|---|---|---|"]
    for kind, name in NAMES.items():
        figure = figures["pictures"][kind]
        parts = ", ".join(f"{k} {100 * v:.1f} %" for k, v in figure["attributes"].items())
        lines.append(f"| {name} | {_percent(figure['readable'])} | {parts} |")
    lines += ["", f"Autoencoder, values in [-1, 1]: mean absolute error {figures['vae']['l1']:.4f}.", ""]
    lines += ["Under-specified prompts, 64 pictures each:", ""]
    for prompt, seen in figures["variety"].items():
        lines.append(f'- "{prompt}": ' + ", ".join(f"{k} {v}" for k, v in seen.items()))
    lines += ["", "## What was drawn for what was asked", "", "| asked | seen by the oracle |", "|---|---|"]
    for asked, seen in figures["pictures"]["confusion"].items():
        lines.append(f"| {asked} | " + ", ".join(f"{k} {v}" for k, v in seen.items()) + " |")
    return [*lines, "", "A sheet of 100 generated pictures, not chosen by anyone: `samples.png`.", ""]


def write_card(folder: Path, figures: dict[str, Any], sizes: dict[str, float]) -> None:
    """Write README.md and gates.json beside the weights."""
    (folder / "gates.json").write_text(json.dumps(figures, indent=1) + "\n")
    (folder / "README.md").write_text(HEAD.format(**sizes) + "\n".join(_gates(figures) + _details(figures)))


def write_sheet(file: Path, shown: list[tuple[str, Image.Image]], columns: int = 10, cell: int = 96) -> None:
    """Write the sheet: the first pictures of each kind in their order, each under its prompt."""
    label, font = 34, ImageFont.load_default(9)
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * (cell + 6), rows * (cell + label)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (prompt, picture) in enumerate(shown):
        x, y = (i % columns) * (cell + 6), (i // columns) * (cell + label)
        words, lines = prompt.split(), [""]
        for word in words:
            if draw.textlength(f"{lines[-1]} {word}", font) > cell:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        draw.multiline_text((x + 2, y), "\n".join(lines[:3]), "black", font, spacing=1)
        sheet.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (x, y + label - 2))
    sheet.save(file, optimize=True)
