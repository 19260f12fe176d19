"""What every part of the way works with: the configuration, the caches, the device, and patience with downloads."""

from pathlib import Path

import torch

from revocab.errors import ConfigError
from revocab.runtime.cache import Cache
from revocab.runtime.retry import Retries
from revocab.schema import Accelerator, Config


class Workplace:
    """
    Raises:
        ConfigError: the config asks for a GPU, or more of them, than torch sees.
    """

    def __init__(self, config: Config, retries: Retries) -> None:
        self.config, self.retries = config, retries
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("trainer.accelerator", "gpu", "cpu where torch sees no GPU", "Add trainer=cpu.")
        devices = config.trainer.devices
        if self.device == "cuda" and devices > torch.cuda.device_count():
            expected = f"at most {torch.cuda.device_count()}, the GPUs that torch sees"
            raise ConfigError("trainer.devices", devices, expected)
        self.cache = Cache(Path(config.paths.cache_dir))
        tokens = config.tokenization.cache_dir
        self.token_cache = Cache(Path(tokens)) if tokens else self.cache

    @property
    def device(self) -> str:
        return "cuda" if self.config.trainer.accelerator is Accelerator.gpu else "cpu"
