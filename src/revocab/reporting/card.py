"""The model card: README.md of a model folder, with how the model was made and what it scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from revocab.reporting.settings import show

LOADING = {
    "model": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
""",
    "adapter": """import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("SOURCE", dtype=torch.float32)
tables = load_file("FOLDER/tables.safetensors")
model.resize_token_embeddings(len(next(iter(tables.values()))), mean_resizing=False)
with torch.no_grad():
    for name, table in tables.items():
        model.get_parameter(name).copy_(table)
model = PeftModel.from_pretrained(model, "FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
""",
}


def model_card(summary: Mapping[str, Any], *, source: str, target: str, kind: Literal["model", "adapter"]) -> str:
    """Markdown with the Hub's header.

    Args:
        summary: summary.json of the job.
        source, target: what the config names as source model and target tokenizer; of a local folder its name is shown.
        kind: a whole model, or adapters with embedding tables.
    """
    source, target = (Path(name).name if Path(name).is_dir() else name for name in (source, target))
    header: dict[str, Any] = {"tags": ["vocabulary-adaptation", "revocab"]}
    header |= {"library_name": "transformers" if kind == "model" else "peft", "pipeline_tag": "text-generation"}
    if source.count("/") == 1:
        header["base_model"] = source  # a Hub id
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
        f"# {source} with the vocabulary of {target}\n",
        "Made by revocab: tokens of the two vocabularies were aligned, the embedding tables rearranged and trained "
        "alone (stage 1), then the body (stage 2).\n",
        f"## Load it\n\n```python\n{LOADING[kind].replace('SOURCE', source)}```\n",
        f"## Scores\n\nBits per byte of held-out text, lower is better:\n\n{_scores(summary['bpb'])}",
        f"## Settings\n\n{_settings(summary)}",
        f"## Stages\n\n{_stages(summary)}",
    ]
    return "\n".join(parts)


def _scores(bpb: Mapping[str, Mapping[str, float]]) -> str:
    stages = list(dict.fromkeys(stage for scores in bpb.values() for stage in scores))
    rows = [
        [name, *(f"{scores[stage]:.4f}" if stage in scores else "" for stage in stages)] for name, scores in bpb.items()
    ]
    return _table(["data set", *stages], rows)


def _settings(summary: Mapping[str, Any]) -> str:
    values = {
        **summary["labels"],
        "scale": summary["scale"]["name"],
        "seed": summary["seed"],
        "device": summary["device"],
    }
    values |= {f"version of {name}": version for name, version in summary["versions"].items()}
    return _table(["setting", "value"], [[f"`{key}`", show(value)] for key, value in values.items()])


def _stages(summary: Mapping[str, Any]) -> str:
    keys = ("kind", "steps", "tokens", "loss_first", "loss_last", "skipped_steps")
    stages = {name: summary[name] for name in ("stage1", "stage2") if name in summary}
    return _table(["", *keys], [[name, *(show(record[key]) for key in keys)] for name, record in stages.items()])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
