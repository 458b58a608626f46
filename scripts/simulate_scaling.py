"""What a training run takes on 1, 8, 16 and 32 GPUs: a simulation from the time of one pair on one of them.

    python scripts/simulate_scaling.py --model sdxl --method lora --step_seconds 0.61 --price 2.5
    python scripts/simulate_scaling.py --model sd15 --method full --step_seconds 0.15 --json scaling.json
    python scripts/simulate_scaling.py --validate

`--step_seconds` is the one figure that decides, and it is yours: `seconds.batch` of `t2ialign train ... --estimate` on
one of the GPUs, over the pairs of a batch. Left out, the operations of a pair (docs/runbook.md) over
`--operations_per_second` stand for it, an assumption that no GPU was asked about. `--validate` holds the model against
this machine: one process against two over gloo, on the packaged model.

The model, of an optimizer step of G pairs on p GPUs, batches of b pairs:

    compute    = G / p * step_seconds, for every GPU is as fast as the one that was timed
    ddp        = 2 (p - 1) / p * gradient bytes / bandwidth: a ring all-reduce, once a step
    fsdp2      = (p - 1) / p * (3 * 2 n * batches + 4 n) / bandwidth: of n numbers, in bf16 the policy's weights twice
                 and the reference's once for every batch, float32 gradients once
    exposed    = max(0, communication - overlap * what it can hide behind): ddp the last backward, fsdp2 all compute
    data       = G / p / (workers * decode rate), beside compute; 0 from the caches
    step       = max(compute + exposed, data)
    checkpoint = bytes / disk bandwidth, every `checkpoint_every` steps
    failure    = start-up and half of the steps between checkpoints; there are hours * nodes / hours between failures
    requeue    = start-up; nothing is lost, a checkpoint is written when the end is told

Waiting in a queue costs time and no GPU hours, and is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

NUMBERS = {"sd15": 859.5e6, "sdxl": 2567.5e6}
"""Numbers of the UNet (docs/runbook.md, counted on the published configurations)."""
TRAINED = {("sd15", "lora"): 1.6e6, ("sd15", "full"): 859.5e6, ("sdxl", "lora"): 11.6e6, ("sdxl", "full"): 2567.5e6}
"""Numbers that are trained (docs/runbook.md; LoRA of rank 8)."""
OPERATIONS = {
    ("sd15", "lora"): 5.04e12,
    ("sd15", "full"): 7.62e12,
    ("sdxl", "lora"): 52.02e12,
    ("sdxl", "full"): 64.40e12,
}
"""Operations of a pair of DPO, both forwards and the backward, as the recipes set checkpointing (docs/runbook.md)."""
BACKWARD = {("sd15", "lora"): 0.36, ("sd15", "full"): 0.58, ("sdxl", "lora"): 0.48, ("sdxl", "full"): 0.58}
"""Share of these operations that is the backward pass (docs/runbook.md)."""
PAIRS = {("sd15", "lora"): 32, ("sd15", "full"): 128, ("sdxl", "lora"): 16, ("sdxl", "full"): 128}
"""Pairs a step, by the recipes."""


@dataclass(frozen=True)
class Setting:
    """What a run and its machines are; bandwidths in bytes a second.

    Attributes:
        step_seconds: Of a pair on one GPU.
        pairs_per_step: G.
        batch_size: Pairs a GPU computes at once.
        steps: Optimizer steps.
        trained: Numbers that are trained.
        numbers: Numbers of the UNet.
        sharded: FSDP2 instead of plain data parallelism.
        backward_share: Of the time of a pair.
    """

    step_seconds: float
    pairs_per_step: int
    batch_size: int
    steps: int
    trained: float
    numbers: float
    sharded: bool = False
    gpus_per_node: int = 8
    bandwidth_inside: float = 100e9
    bandwidth_between: float = 20e9
    overlap: float = 0.7
    backward_share: float = 0.5
    decode_rate: float = 0.0
    workers: int = 4
    checkpoint_every: int = 500
    disk_bandwidth: float = 1e9
    start_up: float = 180.0
    hours_between_failures: float = 500.0
    hours_a_job: float = 12.0


ASSUMED = {
    "bandwidth_inside": "100 GB/s between the GPUs of a node: an assumption, below what NVLink's data sheets promise",
    "bandwidth_between": "20 GB/s out of a node: an assumption, of two 100 Gbit/s adapters",
    "overlap": "0.7 of what communication can hide behind hides it: an assumption",
    "decode_rate": "pairs a second that a worker decodes; 0: pictures come from the cache",
    "disk_bandwidth": "1 GB/s onto the disk: an assumption",
    "start_up": "180 s from the start to the first step: an assumption",
    "hours_between_failures": "500 h between failures of a node: an assumption",
    "hours_a_job": "12 h a job, as in trainers/launch/slurm.sh",
}
"""Every input that was not measured here, and where it comes from."""


@dataclass(frozen=True)
class Outcome:
    """What a run takes on some GPUs: seconds of a step and of its parts, and hours of all.

    Attributes:
        efficiency: Pairs a second over those of as many GPUs that need not talk to each other.
    """

    gpus: int
    accumulation: int
    step: float
    compute: float
    communication: float
    exposed: float
    pairs_per_second: float
    efficiency: float
    hours: float
    gpu_hours: float


def simulate(setting: Setting, gpus: int) -> Outcome:
    """Return what the run takes.

    Raises:
        ValueError: if the pairs of a step cannot be split so.
    """
    if setting.pairs_per_step % (gpus * setting.batch_size):
        raise ValueError(f"{setting.pairs_per_step} pairs are no multiple of {gpus} GPUs x {setting.batch_size} pairs")
    batches = setting.pairs_per_step // (gpus * setting.batch_size)
    compute = setting.pairs_per_step / gpus * setting.step_seconds
    communication, hiding = traffic(setting, gpus, batches, compute)
    exposed = max(0.0, communication - setting.overlap * hiding)
    fed = setting.decode_rate * setting.workers
    data = setting.pairs_per_step / gpus / fed if fed else 0.0
    step = max(compute + exposed, data)
    hours = total_hours(setting, step, gpus)
    rate = setting.pairs_per_step / step
    return Outcome(
        gpus=gpus,
        accumulation=batches,
        step=step,
        compute=compute,
        communication=communication,
        exposed=exposed,
        pairs_per_second=rate,
        efficiency=rate * setting.step_seconds / gpus,
        hours=hours,
        gpu_hours=hours * gpus,
    )


def traffic(setting: Setting, gpus: int, batches: int, compute: float) -> tuple[float, float]:
    """Return seconds of communication of a step, and seconds of compute that it can hide behind."""
    if gpus == 1:
        return 0.0, 0.0
    bandwidth = setting.bandwidth_inside if gpus <= setting.gpus_per_node else setting.bandwidth_between
    share = (gpus - 1) / gpus
    if setting.sharded:
        gathered = 2 * setting.numbers * batches * 3
        return share * (gathered + 4 * setting.trained) / bandwidth, compute
    last_backward = compute / batches * setting.backward_share
    return 2 * share * 4 * setting.trained / bandwidth, last_backward


def total_hours(setting: Setting, step: float, gpus: int) -> float:
    """Return the hours of all steps with checkpoints, requeues and the failures to be expected."""
    written = 12 * setting.trained / setting.disk_bandwidth
    stepping = setting.steps * step + setting.steps / setting.checkpoint_every * written
    nodes = -(-gpus // setting.gpus_per_node)
    hours = stepping / 3600
    parts = 1 + hours // setting.hours_a_job
    failures = hours * nodes / setting.hours_between_failures
    lost = setting.start_up + setting.checkpoint_every / 2 * step
    return (stepping + parts * setting.start_up + failures * lost) / 3600


def main() -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(NUMBERS), default="sdxl")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--sharded", action="store_true", help="FSDP2 instead of plain data parallelism")
    parser.add_argument("--step_seconds", type=float, help="of a pair on one GPU, measured by --estimate")
    parser.add_argument("--operations_per_second", type=float, default=1e14, help="where --step_seconds is left out")
    parser.add_argument("--pairs_per_step", type=int, help="G; by the recipe unless given")
    parser.add_argument("--batch_size", type=int, default=1, help="pairs a GPU computes at once")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--price", type=float, default=0.0, help="of a GPU hour, in your currency")
    for name in ASSUMED:
        parser.add_argument(f"--{name}", type=float, default=getattr(Setting, name), help=ASSUMED[name])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--validate", action="store_true", help="one process against two on this machine's CPU")
    options = parser.parse_args()
    result = validate() if options.validate else table(options)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def table(options: argparse.Namespace) -> dict[str, Any]:
    """Print a line for each number of GPUs."""
    key = (options.model, options.method)
    assumed = options.step_seconds is None
    seconds = OPERATIONS[key] / options.operations_per_second if assumed else options.step_seconds
    setting = Setting(
        step_seconds=seconds,
        pairs_per_step=options.pairs_per_step or PAIRS[key],
        batch_size=options.batch_size,
        steps=options.steps,
        trained=TRAINED[key],
        numbers=NUMBERS[options.model],
        sharded=options.sharded,
        backward_share=BACKWARD[key],
        **{name: getattr(options, name) for name in ASSUMED},
    )
    source = "ASSUMED, not measured: give --step_seconds" if assumed else "given"
    print(f"{options.model} {options.method}, {'FSDP2' if options.sharded else 'DDP'}, {setting.steps} steps")
    print(f"seconds of a pair on one GPU: {seconds:.4g} ({source})\n")
    print("| GPUs | pairs a step | batch x accumulation | pairs/s | efficiency | days | GPU hours | cost |")
    print("|---|---|---|---|---|---|---|---|")
    lines = []
    for gpus in options.gpus:
        each = fitting(setting, gpus)
        found = simulate(each, gpus)
        cost = f"{found.gpu_hours * options.price:,.0f}" if options.price else "-"
        print(
            f"| {gpus} | {each.pairs_per_step} | {each.batch_size} x {found.accumulation} | "
            f"{found.pairs_per_second:.2f} | {found.efficiency:.0%} | {found.hours / 24:.3g} | "
            f"{found.gpu_hours:,.1f} | {cost} |"
        )
        lines.append({**asdict(found), "pairs_per_step": each.pairs_per_step, "cost": found.gpu_hours * options.price})
    return {"step_seconds": seconds, "step_seconds_source": source, "setting": asdict(setting), "gpus": lines}


def fitting(setting: Setting, gpus: int) -> Setting:
    """Return the setting with at least a batch a GPU: a step has as many pairs as the GPUs compute at once."""
    return replace(setting, pairs_per_step=max(setting.pairs_per_step, gpus * setting.batch_size))


def validate() -> dict[str, Any]:
    """Measure one process and two over gloo on the packaged model, and the model's prediction for two."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in ("lora", "full"):
            one, two = (measure(Path(folder) / f"{method}-{count}", method, count) for count in (1, 2))
            trained = one["trained"]
            setting = Setting(
                step_seconds=1 / one["pairs_per_second"],
                pairs_per_step=8,
                batch_size=4,
                steps=1,
                trained=trained,
                numbers=trained,
                bandwidth_inside=gloo_bandwidth(int(4 * trained)),
                overlap=0.0,
            )
            predicted = simulate(setting, 2).pairs_per_second
            found[method] = {
                "one": one["pairs_per_second"],
                "two": two["pairs_per_second"],
                "predicted": predicted,
                "predicted_over_measured": predicted / two["pairs_per_second"],
                "gloo_bytes_per_second": setting.bandwidth_inside,
            }
            print(
                f"{method}: one process {one['pairs_per_second']:.3f} pairs/s, two {two['pairs_per_second']:.3f}, "
                f"predicted {predicted:.3f} ({predicted / two['pairs_per_second']:.2f} of the measured)"
            )
    return found


def measure(output: Path, method: str, processes: int) -> dict[str, float]:
    """Return pairs a second (the median of 16 steps of 8 pairs, a thread a process) and the numbers trained."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    options = (
        f"--model mini-sd --pairs mini-pairs --method {method} --steps 16 --checkpoint_every 0 --cache_latents true"
    )
    options += (
        f" --batch_size 4 --gradient_accumulation_steps {2 // processes} --mixed_precision no --learning_rate 1e-5"
    )
    subprocess.run(
        [*launcher, "-m", "t2ialign", "train", "dpo", *options.split(), "--output_dir", str(output)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    report = json.loads((output / "report.json").read_text())
    rate = statistics.median(line["pairs_per_second"] for line in lines[3:])
    return {"pairs_per_second": rate, "trained": report["model"]["trainable_parameters"]}


_ALL_REDUCE = """
import sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
values = torch.zeros(int(sys.argv[1]) // 4)
times = []
for _ in range(12):
    dist.barrier()
    begun = time.perf_counter()
    dist.all_reduce(values)
    times.append(time.perf_counter() - begun)
if dist.get_rank() == 0:
    print("seconds", sorted(times)[6])
dist.destroy_process_group()
"""


def gloo_bandwidth(size: int) -> float:
    """Return bytes a second of an all-reduce of `size` bytes between two processes of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "reduce.py"
        script.write_text(_ALL_REDUCE)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc_per_node=2",
                str(script),
                str(size),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
            text=True,
        )
    seconds = float(done.stdout.split("seconds")[1].split()[0])
    # 2 (p - 1) / p is 1 for two processes.
    return size / seconds


if __name__ == "__main__":
    main()
