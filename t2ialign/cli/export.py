"""`t2ialign export`: a tuned LoRA in the form that other programs read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.cli.output import say
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

DESCRIPTION = """Write the LoRA of a run as one kohya-style safetensors file, as ComfyUI and A1111 read it.

Plain diffusers needs no export: pipeline.load_lora_weights("RUN/final") reads the run itself."""

EXAMPLES = """examples:
  t2ialign export runs/first/final --output first.safetensors
"""


@dataclass
class Options:
    """What to export, and where to."""

    final: Path = option(REQUIRED, "The final/ folder of a run that trained a LoRA.", positional=True)
    output: Path = option(REQUIRED, "The file to write, .safetensors.")
    half: bool = option(False, "Write float16: half the size, rounded.")
    family: str | None = option(
        None, "Needed only for a LoRA that t2ialign did not train.", choices=("sd15", "sd2", "sdxl")
    )

    def __post_init__(self) -> None:
        """Refuse a name that other programs would not read."""
        if self.output.suffix != ".safetensors":
            raise ConfigError(f"output is {str(self.output)!r}; the file must be named *.safetensors")


def run(options: Options) -> int:
    """Write the file and say where it is."""
    from t2ialign.models.export import export_kohya

    export_kohya(options.final, options.output, half=options.half, family=options.family)
    say(f"{options.output}")
    return 0
