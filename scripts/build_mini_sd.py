"""Build mini-SD: its autoencoder, text encoder, UNet and CLIP, stage by stage, and its pairs.

    python scripts/build_mini_sd.py vae text unet headroom clip assemble pairs gates

`unet` learns from true captions and then draws nearly every prompt right, which leaves alignment nothing to mend;
`headroom` goes on with captions of two objects as careless as the web's. A stage that was stopped continues where it
was. `assemble` writes the folders that are packaged, `pairs` makes the preference pairs, `gates` measures everything
and writes the model card. `--start t2ialign/mini/assets` goes on from committed weights instead of from nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from mini_sd.assemble import assemble_clip, assemble_pipeline, load_averages
from mini_sd.card import write_card, write_sheet
from mini_sd.clip import train_clip
from mini_sd.fit import Schedule
from mini_sd.gates import gate_clip, gate_oracle, gate_pictures, gate_vae, gate_variety
from mini_sd.make_pairs import write_sets
from mini_sd.sampling import load
from mini_sd.text import new_tokenizer, train_text_encoder
from mini_sd.unet import train_unet
from mini_sd.vae import measure_scale, train_vae

STEPS = {"vae": 14_000, "text": 700, "unet": 4_000, "headroom": 400, "clip": 700}
CARELESS = 0.46
"""Share of two-object captions told wrongly in the `headroom` stage: alignment needs something to mend."""
ASSETS = Path(__file__).parents[1] / "t2ialign" / "mini" / "assets"


def _vae(arguments: argparse.Namespace) -> None:
    start = AutoencoderKL.from_pretrained(arguments.start / "mini-sd" / "vae") if arguments.start else None
    vae = train_vae(arguments.work, arguments.seed, Schedule(arguments.vae_steps, 2e-3, ema=0.999), start)
    vae.register_to_config(scaling_factor=measure_scale(vae, arguments.seed))
    vae.save_pretrained(arguments.work / "vae")


def _text(arguments: argparse.Namespace) -> None:
    tokenizer = new_tokenizer(arguments.work / "tokenizer")
    encoder = train_text_encoder(arguments.work, arguments.seed, Schedule(arguments.text_steps, 1e-3, 50), tokenizer)
    encoder.save_pretrained(arguments.work / "text_encoder")


def _unet(arguments: argparse.Namespace) -> None:
    unet, encoder = None, arguments.work / "text_encoder"
    if arguments.start:
        unet = UNet2DConditionModel.from_pretrained(arguments.start / "mini-sd" / "unet")
        encoder = arguments.start / "mini-sd" / "text_encoder"
    train_unet(
        arguments.work,
        arguments.seed,
        Schedule(arguments.unet_steps, 1.5e-3, 200, ema=0.9995),
        AutoencoderKL.from_pretrained(arguments.work / "vae"),
        CLIPTokenizer.from_pretrained(arguments.work / "tokenizer"),
        CLIPTextModel.from_pretrained(encoder),
        unet,
    )


def _headroom(arguments: argparse.Namespace) -> None:
    unet, encoder = load_averages(arguments.work, "unet")
    train_unet(
        arguments.work,
        arguments.seed,
        Schedule(arguments.headroom_steps, 4e-4, 50, ema=0.995),
        AutoencoderKL.from_pretrained(arguments.work / "vae"),
        CLIPTokenizer.from_pretrained(arguments.work / "tokenizer"),
        encoder,
        unet,
        name="headroom",
        careless=CARELESS,
    )


def _clip(arguments: argparse.Namespace) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(arguments.work / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(arguments.work / "text_encoder")
    schedule = Schedule(arguments.clip_steps, 1e-3, 100, ema=0.999)
    assemble_clip(
        train_clip(arguments.work, arguments.seed, schedule, tokenizer, encoder), tokenizer, arguments.output
    )


def _assemble(arguments: argparse.Namespace) -> None:
    assemble_pipeline(arguments.work, arguments.output)


def _gates(arguments: argparse.Namespace) -> None:
    folder = arguments.output / "mini-sd"
    pipeline = load(str(folder))
    pictures, shown = gate_pictures(pipeline)
    figures = {
        "oracle": gate_oracle(),
        "vae": gate_vae(pipeline.vae),
        "pictures": pictures,
        "variety": gate_variety(pipeline),
        "clip": gate_clip(str(arguments.output / "mini-clip")),
    }
    sizes = {
        "unet": sum(p.numel() for p in pipeline.unet.parameters()) / 1e6,
        "careless": 100 * CARELESS,
        "text": sum(p.numel() for p in pipeline.text_encoder.parameters()) / 1e6,
        **{f"{stage}_steps": getattr(arguments, f"{stage}_steps") for stage in STEPS},
    }
    write_card(folder, figures, sizes)
    per_kind = [shown[start : start + part] for start, part in ((0, 30), (200, 50), (400, 20))]
    write_sheet(folder / "samples.png", [item for part in per_kind for item in part])


def _pairs(arguments: argparse.Namespace) -> None:
    write_sets(load(str(arguments.output / "mini-sd")), arguments.output, arguments.seed)


STAGES = {
    "vae": _vae,
    "text": _text,
    "unet": _unet,
    "headroom": _headroom,
    "clip": _clip,
    "assemble": _assemble,
    "gates": _gates,
    "pairs": _pairs,
}


def main() -> None:
    """Run the named stages in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=list(STAGES))
    parser.add_argument("--work", type=Path, default=Path("build/mini_sd"), help="folder of unfinished stages")
    parser.add_argument("--output", type=Path, default=ASSETS, help="folder of the packaged weights")
    parser.add_argument("--start", type=Path, default=None, help="folder of weights to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    for stage, steps in STEPS.items():
        parser.add_argument(f"--{stage}_steps", type=int, default=steps)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for stage in arguments.stages:
        STAGES[stage](arguments)


if __name__ == "__main__":
    main()
