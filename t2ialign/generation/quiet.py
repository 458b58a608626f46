"""Quiet: diffusers and transformers keep their bars and warnings to themselves for a while.

Law of this file: whatever was set before is set again afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*, warnings: bool = True) -> Iterator[None]:
    """Hide the libraries' progress bars and, if `warnings`, what they log below an error.

    Their warning of cut prompts comes with every batch, for instance; `run` counts such prompts once.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    try:
        for library in libraries:
            library.disable_progress_bar()
            if warnings:
                library.set_verbosity_error()
        yield
    finally:
        for library, (verbosity, bar) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bar:
                library.enable_progress_bar()
