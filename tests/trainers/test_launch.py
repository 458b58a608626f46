"""The launch configurations of `trainers/launch/`: accelerate reads them, Slurm's script does what it says."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers import cpu_sharding, fake_slurm
from helpers.pairs import colour_pairs
from helpers.tiny import FAMILIES, tiny_unet
from t2ialign.engine.metrics import read_metrics
from t2ialign.engine.sharding import BLOCKS

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "trainers" / "launch"
FILES = sorted(LAUNCH.glob("*.yaml"))
PROCESSES = {"one_gpu": (1, 1), "ddp_1x8": (8, 1), "ddp_4x8": (32, 4), "fsdp2_1x8": (8, 1)}


def launcher(path: Path) -> Any:
    """What `accelerate launch --config_file PATH script.py` works with, its defaults and checks included."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    parsed = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
    return _validate_launch_command(parsed)[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_reads_each_configuration(path: Path) -> None:
    from accelerate.commands.config import load_config_from_file

    config = load_config_from_file(str(path))
    assert (config.num_processes, config.num_machines) == PROCESSES[path.stem]
    assert config.use_cpu is False


def test_every_configuration_is_known_and_explained() -> None:
    assert {path.stem for path in FILES} == set(PROCESSES)
    text = (LAUNCH / "README.md").read_text()
    for path in LAUNCH.iterdir():
        assert path.name == "README.md" or path.name in text


def test_fsdp_env_is_what_accelerate_makes_of_the_configuration() -> None:
    from accelerate.commands.launch import prepare_multi_gpu_env

    made = prepare_multi_gpu_env(launcher(LAUNCH / "fsdp2_1x8.yaml"))
    lines = (LAUNCH / "fsdp2.env").read_text().splitlines()
    written = dict(shlex.split(line)[1].split("=", 1) for line in lines if line.startswith("export "))
    assert written
    assert {name: made.get(name, "").lower() for name in written} == {
        name: value.lower() for name, value in written.items()
    }
    assert cpu_sharding.ENVIRONMENT.items() <= written.items()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_blocks_that_are_gathered_hold_nearly_all_of_a_unet(family: str) -> None:
    written = (LAUNCH / "fsdp2_1x8.yaml").read_text()
    assert f"fsdp_transformer_layer_cls_to_wrap: {','.join(BLOCKS)}\n" in written
    unet = tiny_unet(family)
    inside = {id(part) for module in unet.modules() if type(module).__name__ in BLOCKS for part in module.parameters()}
    assert {type(module).__name__ for module in unet.modules()} >= set(BLOCKS)
    sizes = {id(part): part.numel() for part in unet.parameters()}
    assert sum(sizes[each] for each in inside) > 0.6 * sum(sizes.values())


def test_the_slurm_script_is_bash() -> None:
    read = subprocess.run(["bash", "-n", str(LAUNCH / "slurm.sh")], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


class Job:
    """A job of `slurm.sh` on this machine, with two processes on the CPU."""

    def __init__(self, folder: Path, pairs: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        fake_slurm.install(folder / "bin")
        self.output, self.requeued = folder / "run", folder / "requeued"
        self.pairs = pairs

    def start(self, restarts: int = 0) -> subprocess.Popen[bytes]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
            "LAUNCH": str(LAUNCH),
            "REQUEUED": str(self.requeued),
            "MASTER_PORT": str(port),
            "SLURM_JOB_ID": "77",
            "SLURM_JOB_NODELIST": "node",
            "SLURM_NTASKS": "2",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        options = ["--model", "mini-sd", "--pairs", str(self.pairs), "--steps", "12", "--batch_size", "1"]
        options += ["--gradient_accumulation_steps", "1", "--checkpoint_every", "0", "--mixed_precision", "no"]
        options += ["--cache_latents", "no"]
        command = ["bash", str(LAUNCH / "slurm.sh"), str(self.output), "dpo", *options]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def steps(self) -> int:
        file = self.output / "metrics.jsonl"
        return len(read_metrics(file)) if file.exists() else 0


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launch") / "pairs"
    colour_pairs(folder, 12)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "algorithm", "method"),
    [
        (["torch.distributed.run", "--standalone", "--nproc_per_node=2"], "mapo", "lora"),
        (
            ["accelerate.commands.launch", "--config_file", str(LAUNCH / "ddp_1x8.yaml"), "--num_processes=2"],
            "sft",
            "full",
        ),
    ],
)
def test_the_command_trains_under_both_launchers(
    tmp_path: Path, pairs: Path, launcher: list[str], algorithm: str, method: str
) -> None:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    options = ["--model", "mini-sd", "--pairs", str(pairs), "--method", method, "--output_dir", str(tmp_path / "run")]
    options += ["--steps", "2", "--batch_size", "2", "--gradient_accumulation_steps", "1", "--mixed_precision", "no"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "t2ialign", "train", algorithm, *options],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["status"], report["processes"], report["steps"]) == ("done", 2, 2)


@pytest.mark.slow
def test_every_weight_mapo_and_sft_train_on_two_processes_as_on_one(tmp_path: Path, pairs: Path) -> None:
    # Small betas, for a loss multiplies the last digit of an error by them; Adam's epsilon for the same reason.
    calm = {"learning_rate": 2e-4, "adam_epsilon": 1e-2}
    kinds = {
        "dpo": {**calm, "beta": 5.0, "method": "full"},
        "mapo": {**calm, "beta": 0.01, "method": "full"},
        "sft": {**calm, "method": "full"},
    }
    jobs = [
        {
            "algorithm": name,
            "options": options,
            "output": str(tmp_path / f"{name}-{count}"),
            "pairs": str(pairs),
            "steps": 3,
            "processes": count,
        }
        for name, options in kinds.items()
        for count in (1, 2)
    ]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "helpers" / "train_many.py"), json.dumps(jobs)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in kinds:
        one, two = (tmp_path / f"{name}-{count}" for count in (1, 2))
        lines = zip(read_metrics(one / "metrics.jsonl"), read_metrics(two / "metrics.jsonl"), strict=True)
        for alone, together in lines:
            assert together["loss"] == pytest.approx(alone["loss"], rel=1e-6)
        file = "final/unet/diffusion_pytorch_model.safetensors"
        whole, shared = load_file(one / file), load_file(two / file)
        for key, tensor in whole.items():
            torch.testing.assert_close(shared[key], tensor, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_a_job_that_is_told_of_its_end_is_requeued_and_goes_on(tmp_path: Path, pairs: Path) -> None:
    straight, cut = Job(tmp_path / "straight", pairs), Job(tmp_path / "cut", pairs)
    assert straight.start().wait(timeout=300) == 0, straight.log()
    assert not straight.requeued.exists()
    running = cut.start()
    deadline = time.monotonic() + 300
    while cut.steps() < 3 and time.monotonic() < deadline:
        assert running.poll() is None, cut.log()
        time.sleep(0.01)
    running.send_signal(signal.SIGUSR1)
    assert running.wait(timeout=300) == 138, cut.log()
    assert cut.requeued.read_text() == "77\n"
    assert 3 <= cut.steps() < 12
    assert not (cut.output / "final").exists()
    assert cut.start(restarts=1).wait(timeout=300) == 0, cut.log()
    assert cut.requeued.read_text() == "77\n"
    one, two = (read_metrics(job.output / "metrics.jsonl") for job in (straight, cut))
    assert [line["loss"] for line in one] == [line["loss"] for line in two]
    mine, theirs = (load_file(job.output / "final" / "pytorch_lora_weights.safetensors") for job in (cut, straight))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


@pytest.mark.slow
def test_a_restart_without_a_checkpoint_begins_anew_and_keeps_what_was_there(tmp_path: Path, pairs: Path) -> None:
    job = Job(tmp_path / "job", pairs)
    job.output.mkdir()
    (job.output / "config.yaml").write_text("model: mini-sd\n")
    assert job.start(restarts=2).wait(timeout=300) == 0, job.log()
    assert (tmp_path / "job" / "run.before-restart-2" / "config.yaml").read_text() == "model: mini-sd\n"
    assert (job.output / "final").is_dir()
