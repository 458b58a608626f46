"""FSDP2 on CPUs: accelerate turns it on for GPUs alone, torch's `fully_shard` works on gloo too.

`allow()` lets accelerate's state be FSDP where its own rule sees processes on CPUs; everything after that, its
wrapping included, is what runs on GPUs. The environment is what `accelerate launch` makes of a configuration.
"""

from __future__ import annotations

from typing import Any

BLOCKS = "BasicTransformerBlock,ResnetBlock2D"

ENVIRONMENT = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": BLOCKS,
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


def allow() -> None:
    """Make accelerate take FSDP for processes on CPUs, in this process from now on."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    begin = AcceleratorState.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        plugin = kwargs.get("fsdp_plugin")
        if plugin is not None and self.distributed_type is DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            if self._mixed_precision != "no":
                plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = plugin

    AcceleratorState.__init__ = init
