"""How fast pictures are made beside the bare work in them, and what the choices that trade for speed give.

    python scripts/bench_generation.py --json bench.json
    python scripts/bench_generation.py --model sd15-shape --steps 2 --batch_size 1 --pictures 2 --repeats 3
    python scripts/bench_generation.py --compile --profile

All runs are paired (one of each in turn) and given as medians with quartiles:

    time_over_bare     `t2ialign generate` from the read prompts to the written PNG files and lines, over the UNet's
                       forwards with guidance and the VAE's decoding of the same pictures, on tensors ready in memory
    batch_over_single  pictures a second in batches over those one at a time
    channels_last      time of the bare work in channels-last layout over that in the usual one (`--channels_last`)
    compiled           time of the bare work compiled over that as it is (`--compile`), and the seconds of compiling

`stages` says where a picture's time goes, in milliseconds, each measured alone. `mini-sd` is the packaged model;
`sd15-shape` has random weights of the size of SD1.5. Loading is not counted.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]

WORDS = ("a small red circle above a large blue square", "two yellow stars at night", "the flag of a country")


class Work:
    """The same pictures by our command's code and by its bare work.

    Args:
        arguments: Of the command line.
        folder: Where sets are written.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        from bench_training import build_model

        from t2ialign.generation.options import GenerateOptions

        self.arguments, self.folder, self.sets = arguments, folder, count()
        self.model = build_model(arguments.model)
        prompts = folder / "prompts.txt"
        prompts.write_text("".join(f"{WORDS[n % len(WORDS)]}, number {n}\n" for n in range(arguments.pictures)))
        self.options = GenerateOptions(
            model=[arguments.model],
            prompts=str(prompts),
            output_dir=folder / "set",
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.guidance_scale,
            batch_size=arguments.batch_size,
        )

    def ours(self) -> None:
        """Make a new set of pictures, as `t2ialign generate` does after loading."""
        from t2ialign.data.prompts import read_prompts
        from t2ialign.generation.filling import Item, Wanted, fill, open_writer
        from t2ialign.generation.labels import variants
        from t2ialign.generation.processes import Processes
        from t2ialign.generation.run import describe
        from t2ialign.generation.seeds import image_seed

        options = self.options
        prompts = read_prompts(options.prompts)
        variant = variants(options)[0]
        items = [Item(n, prompt, 0, image_seed(0, prompt.prompt_id, 0)) for n, prompt in enumerate(prompts)]
        config = describe(options, self.model, prompts, variant, None)
        folder = self.folder / f"set-{next(self.sets)}"
        with Processes() as processes, open_writer(folder, config, processes) as writer:
            fill(writer, self.model, Wanted(items, variant), options, processes)

    def bare(self, batch_size: int | None = None, model: Any = None) -> None:
        """The forwards of the UNet and of the VAE's decoder alone."""
        import torch

        model = self.model if model is None else model
        size = batch_size or self.arguments.batch_size
        rows = 2 if self.arguments.guidance_scale > 1 else 1
        latents, text = self._inputs(rows * size)
        timesteps = torch.linspace(999, 0, self.arguments.steps).long()
        with torch.no_grad():
            for _ in range(0, self.arguments.pictures, size):
                for timestep in timesteps:
                    model.unet(latents, timestep, encoder_hidden_states=text, return_dict=False)
                for row in latents[:size]:
                    model.vae.decode(row[None], return_dict=False)

    def _inputs(self, rows: int) -> tuple[Any, Any]:
        import torch

        model = self.model
        side = model.resolution // int(model.pipeline.vae_scale_factor)
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(rows, model.unet.config.in_channels, side, side, generator=generator)
        text = torch.randn(rows, 77, model.unet.config.cross_attention_dim, generator=generator)
        length = model.tokenizers[0].model_max_length
        return latents.to(model.device, model.dtype), text[:, :length].to(model.device, model.dtype)

    def stages(self) -> dict[str, float]:
        """Milliseconds a picture of each part, measured alone."""
        import torch

        from t2ialign.data.images import encode_png
        from t2ialign.generation.sampler import decode

        model, batch = self.model, self.arguments.batch_size
        rows = 2 if self.arguments.guidance_scale > 1 else 1
        latents, text = self._inputs(rows * batch)
        with torch.no_grad():
            picture = decode(model.pipeline, latents[:1])
            parts: dict[str, tuple[Callable[[], Any], float]] = {
                "text encoder": (lambda: model.encode_prompts([WORDS[0]] * rows * batch), batch),
                "UNet": (
                    lambda: model.unet(latents, 500, encoder_hidden_states=text, return_dict=False),
                    batch / self.arguments.steps,
                ),
                "VAE decoder": (lambda: decode(model.pipeline, latents[:1]), 1),
                "PNG": (lambda: encode_png(picture), 1),
            }
            return {name: 1000 * median_seconds(work) / pictures for name, (work, pictures) in parts.items()}


def median_seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median seconds of a call, after one that warms up."""
    from bench_training import timed

    work()
    return statistics.median(timed(work) for _ in range(repeats))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures that were asked for."""
    from bench_training import paired

    work = Work(arguments, folder)
    repeats = arguments.repeats
    report: dict[str, Any] = {"stages": work.stages(), "time_over_bare": paired(work.ours, work.bare, repeats)}
    if arguments.batch_size > 1:
        report["batch_over_single"] = paired(lambda: work.bare(1), work.bare, repeats)
    if arguments.channels_last:
        other = twin(arguments, channels_last=True)
        report["channels_last"] = paired(lambda: work.bare(model=other), work.bare, repeats)
    if arguments.compile:
        compiled = twin(arguments, compile=True)
        begun = time.perf_counter()
        work.bare(model=compiled)
        seconds = time.perf_counter() - begun
        report["compiled"] = paired(lambda: work.bare(model=compiled), work.bare, repeats) | {"compiling": seconds}
    if arguments.profile:
        profile = cProfile.Profile()
        profile.runcall(work.ours)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(40)
    return report


def twin(arguments: argparse.Namespace, **choices: bool) -> Any:
    """The model once more, made fast."""
    from bench_training import build_model

    from t2ialign.models.speed import speed_up

    model = build_model(arguments.model)
    speed_up(model, **choices)
    return model


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-sd", help="mini-sd, mini-shape, sd15-shape, or a model's folder")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25, help="denoising steps")
    parser.add_argument("--guidance_scale", type=float, default=4.0)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--channels_last", action="store_true", help="measure the channels-last layout too")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--profile", action="store_true", help="show our own calls")
    parser.add_argument("--json", type=Path, help="also write the report here")
    arguments = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory() as name:
        report = measure(arguments, Path(name))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    given = {name: getattr(arguments, name) for name in ("model", "pictures", "steps", "guidance_scale", "batch_size")}
    report = {**given, "device": device, "torch": torch.__version__, "threads": torch.get_num_threads(), **report}
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
