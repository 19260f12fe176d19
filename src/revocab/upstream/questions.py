"""Questions that models are asked, by task."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from revocab import corpus as corpora
from revocab import evaluation
from revocab.errors import ConfigError
from revocab.runtime import embedded
from revocab.runtime.cache import digest
from revocab.runtime.files import write_json
from revocab.runtime.progress import track
from revocab.upstream.workplace import Workplace


class Questions:
    def __init__(self, place: Workplace) -> None:
        self.config, self.cache, self.retries = place.config, place.cache, place.retries

    @cached_property
    def asked(self) -> dict[str, list[evaluation.Question]]:
        """What every model is asked, by task; empty where the config asks for none."""
        evaluated = self.config.evaluation
        if not (evaluated.enabled and evaluated.qa):
            return {}
        given = evaluated.qa_style.value
        tasks, asked = list(self._tasks()), {}
        names = [task for task, _, _ in tasks]
        if len(set(names)) < len(names):
            hint = f"They are called {', '.join(names)}; rename one."
            raise ConfigError("evaluation.tasks", evaluated.tasks, "tasks whose names differ", hint)
        for task, sources, known in tasks:
            style = given if given != "task" else known.style if known else "text"
            asked[task] = [evaluation.pose(item, style) for item in self._items(task, sources, known)]
        return asked

    @cached_property
    def digests(self) -> dict[str, str]:
        return {task: digest([asdict(each) for each in questions]) for task, questions in self.asked.items()}

    @property
    def texts(self) -> dict[str, Iterable[str]]:
        """Each question with its right answer: what no corpus may hold."""
        return {
            task: [f"{each.prompt} {each.choices[each.gold]}" for each in questions]
            for task, questions in self.asked.items()
        }

    def _tasks(self) -> Iterator[tuple[str, list[str], evaluation.Task | None]]:
        """Name and sources of each task, and what is known of it; a folder stands for a task per file."""
        for name in self.config.evaluation.tasks:
            if name in evaluation.TASKS and not Path(name).exists():
                yield name, list(evaluation.TASKS[name].sources), evaluation.TASKS[name]
                continue
            place = embedded.locate(name, "evaluation.tasks")
            if "/" not in place and not Path(place).exists():
                known = ", ".join(evaluation.TASKS)
                raise ConfigError("evaluation.tasks", name, f"{known}, or a .jsonl file or a folder that exists")
            for source in corpora.resolve_inputs([place]):
                yield corpora.dataset_name(str(source)), [str(source)], None

    def _items(self, task: str, sources: list[str], known: evaluation.Task | None) -> list[dict[str, Any]]:
        """The questions of a task as data, read once and kept: those of the smallest hashes, or all."""
        samples = self.config.evaluation.qa_samples

        def rows() -> Iterator[Any]:
            for source in corpora.resolve_inputs(sources):
                for row in corpora.read_rows(source, key="evaluation.tasks"):
                    yield known.read(row) if known else row

        def build(folder: Path) -> dict[str, int]:
            items = track(evaluation.read_items(rows(), ", ".join(sources)), f"reading {task}", unit="question")
            lines: Iterable[str] = (json.dumps(item, ensure_ascii=False) for item in items)
            lines = list(lines) if samples is None else corpora.first_by_hash(lines, samples)
            write_json(folder / "items.json", [json.loads(line) for line in lines])
            return {"questions": len(lines)}

        key = {"task": task if known else None, "sources": corpora.fingerprint(sources), "samples": samples}
        folder = self.retries.download(f"evaluation.tasks {task}", lambda: self.cache.get("questions", key, build))
        return json.loads((folder / "items.json").read_text(encoding="utf-8"))
