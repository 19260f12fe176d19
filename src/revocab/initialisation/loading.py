"""Reading a causal language model in float32, with one-line errors for whatever can be wrong with its name."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from revocab.errors import ModelError
from revocab.runtime.hub import hub_reachable
from revocab.runtime.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def load_model(
    name: str, *, gguf_file: str | None = None, trust_remote_code: bool = False, attention: str = "sdpa"
) -> PreTrainedModel:
    """A causal language model with float32 weights, in evaluation mode, on the CPU.

    Args:
        name: Hub id or local folder.
        gguf_file: a GGUF file inside it; its quantised weights are expanded, so the model can be trained and saved.
        trust_remote_code: run the model's own Python code.
        attention: `sdpa`, `eager`, `flash_attention_2` or another implementation that transformers knows.

    Raises:
        ModelError: unknown name, no network, no such file, not a causal language model, attention not available,
            weights that are damaged or not complete.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    where = str(Path(name).expanduser()) if _is_folder_name(name) else name
    if _is_folder_name(name) and not Path(where).is_dir():
        raise ModelError(f"There is no model folder {name}. Give an existing folder or a Hub id such as owner/name.")
    arguments: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    arguments["local_files_only"] = Path(where).is_dir() or not hub_reachable()
    if gguf_file:
        _check_gguf_file(where, gguf_file)
        arguments |= {"gguf_file": gguf_file, **_dequantised()}
    try:
        if not gguf_file and not trust_remote_code:
            _check_architecture(name, where, arguments)
        with _own_gguf_bar():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where, dtype=torch.float32, attn_implementation=attention, output_loading_info=True, **arguments
            )
        model, found = loaded
    except ModelError:
        raise
    except (SafetensorError, UnpicklingError, EOFError) as error:
        raise ModelError(
            f"A weights file of {name} is damaged or cut off ({error}). Copy or download it anew."
        ) from error
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(_explain(name, error, offline=arguments["local_files_only"])) from error
    if missing := sorted(found["missing_keys"]):  # transformers would draw them at random
        raise ModelError(
            f"The weights of {name} lack {len(missing)} of the model's tensors, such as {missing[0]}. "
            "Copy or download them anew."
        )
    return model.float().eval()


def _is_folder_name(name: str) -> bool:
    """True if `name` can only be meant as a folder: there is one, or no Hub id looks like it."""
    return Path(name).expanduser().is_dir() or not HUB_NAME.fullmatch(name)


def _check_gguf_file(where: str, gguf_file: str) -> None:
    folder = Path(where)
    if folder.is_dir() and not (folder / gguf_file).is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))) or "none"
        raise ModelError(f"{where} has no file {gguf_file} (GGUF files there: {found}). Set models.gguf_file.")


def _dequantised() -> dict[str, Any]:
    """transformers versions that keep GGUF weights quantised need to be told not to; older ones always expand them."""
    import transformers

    config_class = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": config_class(dequantize=True)} if config_class else {}


@contextmanager
def _own_gguf_bar() -> Generator[None]:
    """The bar that transformers shows while it expands GGUF weights heeds none of its settings and fills log files."""
    from transformers import modeling_gguf_pytorch_utils as gguf

    shown = gguf.tqdm
    gguf.tqdm = _gguf_bar  # ty: ignore[invalid-assignment]
    try:
        yield
    finally:
        gguf.tqdm = shown


def _gguf_bar(tensors: Iterable[Any], **_: Any) -> Iterator[Any]:
    return track(tensors, "expanding GGUF weights", unit="tensor")


def _check_architecture(name: str, where: str, arguments: dict[str, Any]) -> None:
    """Encoders load as "causal" models too, with a head that was never trained: ask what the model was trained as."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(where, **arguments)
    architectures = config.architectures or []
    if config.is_encoder_decoder or (architectures and not _is_causal(architectures)):
        was = ", ".join(architectures) or config.model_type
        raise ModelError(f"{name} is no causal language model (it is {was}). Choose a decoder-only model.")


def _is_causal(architectures: list[str]) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    known = {item for value in NAMES.values() for item in ([value] if isinstance(value, str) else value)}
    return any(architecture in known for architecture in architectures)


def _explain(name: str, error: Exception, *, offline: bool) -> str:
    """One line for what transformers says in many."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, ImportError):
        return f"{name} cannot be loaded as configured: {reason} Use attention sdpa, or install what is missing."
    if isinstance(error, ValueError | KeyError):
        return f"{name} is no causal language model that the installed transformers loads: {reason}"
    if Path(name).expanduser().is_dir():
        return f"The folder {name} holds no complete model (config.json and weights): {reason}"
    if offline:
        return (
            f"The model {name} is not in the local Hub cache, and the Hub cannot be reached (no network, or "
            "HF_HUB_OFFLINE is set). Connect, or give the path of a model folder."
        )
    return f"The Hub has no model {name} that you may read. Check the name, or log in with `hf auth login`. ({reason})"


def vocabulary_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The config that says `vocab_size`: a nested text config in models that are more than a language model."""
    return model.config.get_text_config(decoder=True)
