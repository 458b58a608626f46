"""Options as small dataclasses whose fields carry their help text.

Law of this room: one dataclass describes an option once, and its YAML key, its command-line flag, its
conversion, its check and its line of `--help` all follow from it. Imports nothing of ours but `errors`
and nothing heavy.

    @dataclass
    class Options:
        steps: int = option(500, "Optimizer steps.")
        lora: LoraOptions = option(LoraOptions, "Low-rank adapters.")

    options = load(Options, "run.yaml", {"lora.rank": "16"})

Checks of ranges belong into `__post_init__` of the dataclass, where they raise `ConfigError`.
"""

from __future__ import annotations

from t2ialign.config.arguments import parse_arguments
from t2ialign.config.fields import REQUIRED, Option, nearest, option, options_of
from t2ialign.config.files import dump_yaml, load, to_dict
from t2ialign.config.secrets import redacted, without_secrets

__all__ = [
    "REQUIRED",
    "Option",
    "dump_yaml",
    "load",
    "nearest",
    "option",
    "options_of",
    "parse_arguments",
    "redacted",
    "to_dict",
    "without_secrets",
]
