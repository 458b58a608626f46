"""How much a training step costs beside the bare work in it, what caches save, and what the reference takes in memory.

    python scripts/bench_training.py --model mini-sd --batch_size 8 --json bench.json
    python scripts/bench_training.py --model sd15-shape --batch_size 1 --repeats 5

Measurements of Diffusion-DPO, each paired (one of each in turn) and given as medians:

    step_over_bare_unet   a step of ours, from the data loader to the written line of metrics, over the same UNet
                          forwards (reference included), backward and optimizer step on tensors ready in memory
    cached_over_online    pairs a second from cached latents and text over the same with VAE and text encoder in
                          the step
    memory_dpo_over_sft   peak memory of a step over that of plain LoRA tuning on the same number of pictures, each
                          in a process of its own (the accelerator's memory, or the process's on a CPU)
    mapo_over_dpo         a step of MaPO, which has no reference, over a step of DPO, with LoRA and with every weight
    memory_mapo_over_dpo  peak memory of the same, each in a process of its own
    channels_last         a step in channels-last layout over one as it is (`--channels_last`)
    compiled              a compiled step over one as it is, and the seconds of compiling (`--compile`)
    stages                milliseconds of a step of ours by part, each measured inside whole steps

`mini-sd` is the packaged model; `mini-shape` and `sd15-shape` are random weights of the size of mini-SD and of SD1.5.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

SHAPES: dict[str, dict[str, Any]] = {
    "mini-shape": {
        "unet": {
            "sample_size": 8,
            "cross_attention_dim": 128,
            "block_out_channels": (96, 160),
            "layers_per_block": 1,
            "attention_head_dim": 4,
            "norm_num_groups": 16,
            "down_block_types": ("CrossAttnDownBlock2D",) * 2,
            "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        },
        "text": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4},
        "vae": {"block_out_channels": (16, 32, 64, 64), "layers_per_block": 1, "norm_num_groups": 16},
    },
    "sd15-shape": {
        "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    },
}


def build_model(name: str) -> Any:
    """The packaged model, or random weights of a known size."""
    from t2ialign.models.diffusion import DiffusionModel
    from t2ialign.models.loading import load_model

    if name not in SHAPES:
        return load_model(name)
    return DiffusionModel.from_pipeline(random_pipeline(**SHAPES[name]), name)


def random_pipeline(unet: dict[str, Any], text: dict[str, Any], vae: dict[str, Any]) -> Any:
    """A StableDiffusionPipeline of the given size."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from helpers.tiny import tiny_scheduler, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        **vae,
    )
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **ends, **text)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**unet),
        scheduler=tiny_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def prepare(
    arguments: argparse.Namespace, folder: Path, cached: bool, kind: str = "dpo", method: str = "lora", **choices: Any
) -> tuple[Any, Any, Iterator[Any], Any]:
    """A run of ours on random pictures, by DPO or MaPO, its batches, and its log."""
    from helpers.pairs import colour_pairs
    from t2ialign.engine.loop import loader_of, make_schedule
    from t2ialign.engine.metrics import MetricsLog
    from t2ialign.engine.processes import make_accelerator
    from t2ialign.engine.run import Run
    from t2ialign.objectives import dpo, family
    from t2ialign.trainers.defaults import resolve
    from t2ialign.trainers.dpo_config import DPOConfig
    from t2ialign.trainers.preference import PreferenceTask

    model = build_model(arguments.model)
    config = DPOConfig(
        output_dir=folder,
        model=arguments.model,
        pairs="random",
        steps=100_000,
        batch_size=arguments.batch_size,
        gradient_accumulation_steps=1,
        method=method,
        mixed_precision=arguments.mixed_precision,
        gradient_checkpointing=False,
        cache_latents=cached,
        cache_text=cached,
        **choices,
    )
    accelerator = make_accelerator(config)
    model.to(accelerator.device)
    config = resolve(config, family=model.family, resolution=model.resolution)
    pairs = colour_pairs(folder / "pairs", 2 * arguments.batch_size, sizes=((model.resolution,) * 2,) * 2)
    objective = family.mapo() if kind == "mapo" else dpo(5000)
    task = PreferenceTask(model, pairs, objective, config, accelerator.autocast)
    schedule = make_schedule(task, config, accelerator)
    task.setup(accelerator.device, schedule, lambda: False)
    run = Run(task, config, schedule, accelerator)
    batches = (drawn.batch for drawn in loader_of(task, config, schedule, 0))
    return run, task, batches, MetricsLog(folder / "metrics.jsonl", accelerator)


def our_step(run: Any, batches: Iterator[Any], log: Any) -> Callable[[], None]:
    """A step of the engine, metrics included."""

    def step() -> None:
        figures, _ = run.advance(batches, lambda: False)
        log.write(run.step, figures)

    return step


def bare_step(run: Any, task: Any, batch: Any, with_reference: bool = True) -> Callable[[], None]:
    """The UNet's work of one step, on tensors ready in memory; without the reference it is plain LoRA tuning."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn.functional import logsigmoid

    batch = batch.to(task.model.device)
    latents, conditioning = task.encode(batch), task.condition(batch)
    timesteps, noise = batch.timesteps.repeat(2), batch.noise.repeat(2, 1, 1, 1)
    noisy = task.model.add_noise(latents, noise, timesteps).to(task.model.dtype)
    text = conditioning.hidden.to(task.model.dtype)
    unet, optimizer, pairs = run.module, run.optimizer, len(batch)
    layers = [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]

    def errors() -> torch.Tensor:
        predicted: torch.Tensor = unet(noisy, timesteps, encoder_hidden_states=text).sample
        squared: torch.Tensor = (predicted.float() - noise).square()
        return squared.mean(dim=(1, 2, 3))

    def step() -> None:
        policy = errors()
        loss = policy.mean()
        if with_reference:
            with torch.no_grad():
                for layer in layers:
                    layer._disable_adapters = True
                held = errors()
                for layer in layers:
                    layer._disable_adapters = False
            gap = held - policy
            loss = -logsigmoid(2500 * (gap[:pairs] - gap[pairs:])).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def timed(work: Callable[[], None]) -> float:
    """Seconds of one call, the accelerator's work included."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def paired(one: Callable[[], None], other: Callable[[], None], repeats: int) -> dict[str, Any]:
    """Time two pieces of work in turn, changing which comes first; the ratio is of one over the other."""
    one()
    other()
    seconds: list[tuple[float, float]] = []
    for turn in range(repeats):
        if turn % 2:
            second = timed(other)
            seconds.append((timed(one), second))
        else:
            first = timed(one)
            seconds.append((first, timed(other)))
    ratios = sorted(mine / theirs for mine, theirs in seconds)
    return {
        "median": statistics.median(ratios),
        "low": ratios[len(ratios) // 4],
        "high": ratios[(3 * len(ratios)) // 4],
        "n": repeats,
        "seconds": [statistics.median(column) for column in zip(*seconds, strict=True)],
    }


def measure_speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ratios of time."""
    with tempfile.TemporaryDirectory() as folder:
        run, task, batches, log = prepare(arguments, Path(folder) / "cached", cached=True)
        bare = bare_step(run, task, next(batches))
        report = {"step_over_bare_unet": paired(our_step(run, batches, log), bare, arguments.repeats)}
        if arguments.caches:
            other, _, online, other_log = prepare(arguments, Path(folder) / "online", cached=False)
            slower = our_step(other, online, other_log)
            report["cached_over_online"] = paired(slower, our_step(run, batches, log), arguments.repeats)
            other_log.close()
        if arguments.stages:
            report["stages"] = stages(run, task, batches, log)
        for name, wanted in (("channels_last", arguments.channels_last), ("compile", arguments.compile)):
            if wanted:
                other, _, again, other_log = prepare(
                    arguments, Path(folder) / name, cached=True, **dict[str, Any]({name: True})
                )
                step = our_step(other, again, other_log)
                begun = time.perf_counter()
                step()
                first = time.perf_counter() - begun
                measured = paired(step, our_step(run, batches, log), arguments.repeats)
                report[name] = measured | {"seconds_of_the_first": first}
                other_log.close()
        log.close()
    return report


def stages(run: Any, task: Any, batches: Iterator[Any], log: Any, steps: int = 10) -> dict[str, float]:
    """Milliseconds of a step by part: what is measured stands inside whole steps; `rest` is what no part names."""
    spent: dict[str, float] = {}

    def watch(owner: Any, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def outer(*given: Any, **more: Any) -> Any:
            result: list[Any] = []
            spent[name] = spent.get(name, 0.0) + timed(lambda: result.append(inner(*given, **more)))
            return result[0]

        setattr(owner, method, outer)

    watched: list[tuple[Any, str, str]] = [
        (task.model, "predict", "forward of the policy"),
        (task.reference, "predict", "forward of the reference"),
        (run.accelerator, "backward", "backward"),
        (run.accelerator, "clip_grad_norm_", "norm of the gradient"),
        (run.optimizer, "step", "optimizer"),
        (log, "write", "line of metrics"),
    ]
    for owner, method, name in watched:
        watch(owner, method, name)
    drawn = Timed(batches)
    step = our_step(run, drawn, log)
    step()
    spent.clear()
    drawn.seconds = 0.0

    def all_steps() -> None:
        for _ in range(steps):
            step()

    whole = timed(all_steps)
    for owner, method, _ in watched:
        delattr(owner, method)
    spent["forward of the policy"] -= spent["forward of the reference"]
    spent["data"] = drawn.seconds
    spent["rest"] = whole - sum(spent.values())
    return {name: 1000 * seconds / steps for name, seconds in spent.items()} | {"whole": 1000 * whole / steps}


class Timed:
    """An iterator that counts the seconds spent waiting for it."""

    def __init__(self, inner: Iterator[Any]) -> None:
        self._inner = inner
        self.seconds = 0.0

    def __iter__(self) -> Timed:
        return self

    def __next__(self) -> Any:
        begun = time.perf_counter()
        try:
            return next(self._inner)
        finally:
            self.seconds += time.perf_counter() - begun


def measure_algorithms(arguments: argparse.Namespace) -> dict[str, Any]:
    """A step of MaPO over a step of DPO, with LoRA and with every weight."""
    report = {}
    for method in ("lora", "full"):
        with tempfile.TemporaryDirectory() as name:
            steps, logs = [], []
            for kind in ("mapo", "dpo"):
                run, _, batches, log = prepare(arguments, Path(name) / kind, True, kind, method)
                steps.append(our_step(run, batches, log))
                logs.append(log)
            report[method] = paired(steps[0], steps[1], arguments.repeats)
            for log in logs:
                log.close()
    return {"mapo_over_dpo": report}


def measure_memory(arguments: argparse.Namespace) -> int:
    """Peak bytes of two steps in this process: bare ones of DPO and SFT, or ours of an algorithm and a method."""
    import torch

    kind, _, method = arguments.memory_of.partition(":")
    with tempfile.TemporaryDirectory() as name:
        run, task, batches, log = prepare(arguments, Path(name), True, kind, method or "lora")
        if method:
            step = our_step(run, batches, log)
        else:
            step = bare_step(run, task, next(batches), with_reference=kind == "dpo")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        elif Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")  # the peak is then that of the steps, not of loading
        step(), step()
        log.close()
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return peak_of_process()


def peak_of_process() -> int:
    """Peak resident bytes of this process; Linux's `ru_maxrss` would include its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def compare_memory(one: str, other: str) -> dict[str, Any]:
    """Peak memory of one kind of step over that of another, each in its own process."""
    peaks = {}
    for kind in (one, other):
        command = [sys.executable, __file__, *sys.argv[1:], "--memory_of", kind]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[kind] = int(done.stdout.strip().splitlines()[-1])
    return {"ratio": peaks[one] / peaks[other], "bytes": peaks}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-sd", help="mini-sd, mini-shape, sd15-shape, or a model's folder")
    parser.add_argument("--batch_size", type=int, default=8, help="pairs")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--mixed_precision", default="auto")
    parser.add_argument("--caches", action=argparse.BooleanOptionalAction, default=True, help="measure what they save")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="measure memory")
    parser.add_argument("--algorithms", action=argparse.BooleanOptionalAction, default=True, help="MaPO against DPO")
    parser.add_argument("--stages", action=argparse.BooleanOptionalAction, default=True, help="a step by part")
    parser.add_argument("--channels_last", action="store_true", help="measure the channels-last layout too")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the report here")
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(measure_memory(arguments))
        return
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    report: dict[str, Any] = {"model": arguments.model, "batch_size": arguments.batch_size, "device": device}
    report |= {"torch": torch.__version__, "threads": torch.get_num_threads(), **measure_speed(arguments)}
    if arguments.algorithms:
        report |= measure_algorithms(arguments)
    if arguments.memory:
        report["memory_dpo_over_sft"] = compare_memory("dpo", "sft")
    if arguments.memory and arguments.algorithms:
        report["memory_mapo_over_dpo"] = {
            method: compare_memory(f"mapo:{method}", f"dpo:{method}") for method in ("lora", "full")
        }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
