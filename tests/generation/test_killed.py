"""Killed for good (SIGKILL) at chosen moments, sets of several models and pairs of a model with itself go on whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tiny import save_tiny
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.pairs import load_pairs
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.run import generate
from t2ialign.generation.self_pair_options import SelfPairOptions
from t2ialign.generation.self_pairs import make_self_pairs

CHILD = """
import json, os, signal, sys
from diffusers import StableDiffusionPipeline  # once, before the forks
from transformers import CLIPTextModel
from t2ialign.data.image_sets import ImageSetWriter
from t2ialign.generation import filling, run, self_pairs
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.self_pair_options import SelfPairOptions

def die(*given, **more):
    os.kill(os.getpid(), signal.SIGKILL)

def after(calls, module, name):
    act, left = getattr(module, name), [calls]
    def counted(*given, **more):
        left[0] -= 1
        return die() if left[0] < 0 else act(*given, **more)
    setattr(module, name, counted)

works = {"pairs": lambda given: self_pairs.make_self_pairs(SelfPairOptions(**given)),
         "set": lambda given: run.generate(GenerateOptions(**given))}
modules = {"add": (ImageSetWriter, "add"), "pairs": (self_pairs, "write_pairs"), "report": (self_pairs, "write_json"),
           "models": (filling, "write_json")}
for work, given, calls, where in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        after(calls, *modules[where])
        works[work](given)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, where
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_goes_on_after_a_kill(tmp_path: Path) -> None:
    save_tiny(tmp_path, "sd15")
    lines = [json.dumps({"prompt_id": f"p{i}", "prompt": f"prompt {i}"}) for i in range(3)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    common: dict[str, Any] = {
        "prompts": str(tmp_path / "prompts.jsonl"),
        "num_inference_steps": 2,
        "batch_size": 1,
        "device": "cpu",
    }
    model = str(tmp_path / "tiny-sd15")

    def pairs(name: str, **more: Any) -> dict[str, Any]:
        return {**common, "model": model, "phrase": "ink", "output_dir": str(tmp_path / name), **more}

    def scales(name: str) -> dict[str, Any]:
        more: dict[str, Any] = {"one_set": True, "guidance_scale": [2.0, 5.0], "output_dir": str(tmp_path / name)}
        return {**common, "model": [model], **more}

    for name in ("unwritten", "unreported"):
        make_self_pairs(SelfPairOptions(**pairs(name, limit=1)))
    kills: list[tuple[str, dict[str, Any], int, str]] = [
        ("pairs", pairs("drawn"), 4, "add"),  # in the second side
        ("pairs", pairs("unwritten"), 0, "pairs"),  # all is drawn, and the pairs are those of one prompt
        ("pairs", pairs("unreported"), 0, "report"),  # they are written, and the report is that of one
        ("set", scales("drawn-set"), 4, "add"),  # in the second scale
        ("set", scales("unnoted"), 1, "models"),  # before config.json has the second scale
    ]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    settings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(kills)], env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    make_self_pairs(SelfPairOptions(**pairs("whole")))
    whole = load_pairs(tmp_path / "whole")
    for name, kept in (("drawn", 4), ("unwritten", 6), ("unreported", 6)):
        summary = make_self_pairs(SelfPairOptions(**pairs(name)))
        assert (summary.made, summary.kept, summary.pairs) == (6 - kept, kept, 3), name
        report = json.loads((tmp_path / name / "self_pairs.json").read_text(encoding="utf-8"))
        assert report == json.loads((tmp_path / "whole/self_pairs.json").read_text(encoding="utf-8"))
        for one, other in zip(load_pairs(tmp_path / name), whole, strict=True):
            assert one.prompt == other.prompt
            for side in ("chosen", "rejected"):
                assert np.abs(np.asarray(getattr(one, side), int) - np.asarray(getattr(other, side), int)).max() <= 1

    generate(GenerateOptions(**scales("whole-set")))
    expected = {record.key: record.seed for record in ImageSet(tmp_path / "whole-set")}
    models = json.loads((tmp_path / "whole-set/config.json").read_text(encoding="utf-8"))["models"]
    for name, kept in (("drawn-set", 4), ("unnoted", 3)):
        summary_of_set = generate(GenerateOptions(**scales(name)))
        assert (summary_of_set.made, summary_of_set.kept) == (6 - kept, kept)
        assert {record.key: record.seed for record in ImageSet(tmp_path / name)} == expected
        assert json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8"))["models"] == models
