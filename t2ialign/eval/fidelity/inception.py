"""Inception's features, those of which a Frechet distance is called FID.

The network is the one of 2015 that every published FID is of, ported to torch by torch-fidelity, with that code's
resize (as TensorFlow 1 did). torchvision's Inception is another one, and an FID of it compares with none.

Law of this file: weights come from a file that the user names and are read without unpickling anything; nothing is
downloaded.
"""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.errors import MissingDependencyError, ModelError

if TYPE_CHECKING:
    import torch

    from t2ialign.reward_models.base import ImageInput

INCEPTION = "inception-v3, 2015-12-05, pool 3"
"""Name of the features under which the distances are called FID and KID."""
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""The file in torch-fidelity's release v0.2.0; the last part of its name is the beginning of its SHA-256."""
_WIDTH = 2048


class InceptionFeatures:
    """Pictures to the 2048 features of Inception's last pooling.

    Args:
        weights: The file named `WEIGHTS`, or the same weights as safetensors.
        device: As in torch, or "auto".
        batch_size: Pictures in a forward.

    Attributes:
        name: `INCEPTION`, for `fidelity(features=...)`, if the weights are the published ones; else the file's digest
            stands in it.

    Raises:
        MissingDependencyError: If torch-fidelity is not installed.
        ModelError: If the file is missing or holds other weights.
    """

    def __init__(self, weights: Path | str, *, device: str = "auto", batch_size: int = 32) -> None:
        """Load the network."""
        from t2ialign.reward_models.base import pick_device

        file = Path(weights).expanduser()
        if not file.is_file():
            raise ModelError(
                f"no weights in {file}: an FID needs Inception's of 2015. Fetch {WEIGHTS} from the releases of "
                "torch-fidelity (toshas/torch-fidelity, v0.2.0) where there is a network, and name the file; or "
                "measure with the features of a CLIP, whose distances are no FID"
            )
        self.digest = hashlib.sha256(file.read_bytes()).hexdigest()
        published = self.digest.startswith(Path(WEIGHTS).stem.rpartition("-")[2])
        self.name = INCEPTION if published else f"inception-v3, weights {self.digest[:8]}"
        self.device, self.batch_size = pick_device(device), batch_size
        self.model = _network(_state(file), file).to(self.device)

    def embed_images(self, images: Sequence[ImageInput]) -> torch.Tensor:
        """Return features, float32 [n, 2048] on the CPU; pictures may be of different sizes."""
        import torch

        from t2ialign.reward_models.base import check_some, spans

        check_some(images)
        parts = []
        with torch.inference_mode():
            for start, end in spans(len(images), self.batch_size):
                pixels = [_pixels(image) for image in images[start:end]]
                alike = len({tuple(each.shape) for each in pixels}) == 1
                batches = [torch.stack(pixels)] if alike else [each[None] for each in pixels]
                parts += [self.model(batch.to(self.device))[0].float().cpu() for batch in batches]
        return torch.cat(parts)

    def info(self) -> dict[str, Any]:
        """Describe it, in values for JSON."""
        return {"scorer": self.name, "version": self.digest[:8], "weights_sha256": self.digest, "width": _WIDTH}


def _pixels(image: ImageInput) -> torch.Tensor:
    import numpy as np
    import torch

    from t2ialign.reward_models.base import to_rgb

    return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)


def _state(file: Path) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, EOFError, KeyError) as error:
        raise ModelError(f"{file} can not be read as weights: {_line(error)}; fetch {WEIGHTS} again") from error
    except Exception as error:  # pickle.UnpicklingError, for what is no plain dictionary of tensors
        raise ModelError(f"{file} holds more than tensors, which is not read; fetch {WEIGHTS} again") from error


def _network(state: dict[str, Any], file: Path) -> Any:
    import torch

    try:
        extractor = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise MissingDependencyError("torch-fidelity", "fidelity", "the Inception features of an FID") from error
    # Its constructor unpickles whatever it is handed; so it is handed what was read safely, written again.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        return extractor.FeatureExtractorInceptionV3(
            "t2ialign", [str(_WIDTH)], feature_extractor_weights_path=buffer
        ).eval()
    except (RuntimeError, AttributeError) as error:
        raise ModelError(
            f"{file} holds other weights than Inception's of 2015: {_line(error)}; the file needed is {WEIGHTS}"
        ) from error


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
