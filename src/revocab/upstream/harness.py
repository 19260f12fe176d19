"""Tasks of lm-evaluation-harness that models are compared on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revocab import evaluation
from revocab.errors import ConfigError
from revocab.runtime import fingerprints
from revocab.runtime.files import write_json
from revocab.upstream.scores import context_length
from revocab.upstream.workplace import Workplace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Harness:
    def __init__(self, place: Workplace) -> None:
        self.config, self.cache, self.device = place.config.evaluation, place.cache, place.device

    @cached_property
    def tasks(self) -> dict[str, Mapping[str, Any]]:
        """By the names of the config, with their data; empty where it names none.

        Raises:
            ConfigError: no such task, or no such folder.
        """
        if not (self.config.enabled and self.config.harness_tasks):
            return {}
        return evaluation.load_tasks(self.config.harness_tasks, self.folder)

    @property
    def folder(self) -> Path | None:
        """Where tasks of one's own are."""
        given = self.config.harness_folder
        if given is None:
            return None
        folder = Path(given).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError("evaluation.harness_folder", given, "a folder with YAML files of tasks")
        return folder

    def results(
        self, origin: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, model: Callable[[], PreTrainedModel]
    ) -> dict[str, Any]:
        """By task and group what the harness found; each of the config's names is kept in the cache when it is done."""
        found: dict[str, Any] = {}
        for name, tasks in self.tasks.items():
            key = {
                **origin,
                "tokenizer": fingerprints.of_tokenizer(tokenizer),
                "task": name,
                "limit": self.config.harness_samples,
                "folder": fingerprints.of_folder(self.folder) if self.folder else None,
                "version": version("lm-eval"),
            }

            def build(folder: Path, tasks: Mapping[str, Any] = tasks) -> dict[str, Any]:
                results = self._run(tasks, model(), tokenizer)
                write_json(folder / "results.json", results)
                return {"n": {task: result["n"] for task, result in results.items()}}

            folder = self.cache.get("harness", key, build)
            found |= json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return found

    def _run(
        self, tasks: Mapping[str, Any], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        length = context_length(model)
        return evaluation.run_tasks(
            model,
            tokenizer,
            tasks,
            limit=self.config.harness_samples,
            batch_size=max(1, self.config.batch_tokens // length),
            max_length=length,
            device=self.device,
        )
