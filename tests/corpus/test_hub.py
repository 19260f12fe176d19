"""Data sets of the Hub, read over HTTP from a server of files: what is asked for, what survives, what is said."""

import gzip
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

SPEC = importlib.util.spec_from_file_location("fake_hub", Path(__file__).with_name("fake_hub.py"))
fake_hub = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fake_hub)

READ = """
import json, sys
from revocab.corpus import read_documents
from revocab.errors import RevocabError
try:
    for text in read_documents([sys.argv[1]], text_field=None): print(text)
except RevocabError as error:
    sys.exit(f"refused: {error}")
"""
BUILD = """
import sys
from pathlib import Path
from revocab.corpus import build_corpus
build_corpus(Path(sys.argv[2]), [sys.argv[1]], text_field=None, size_gb=None, byte_budget=9000, deduplicate=True,
             hash_name="sha256", min_line_length=0, heldout_fraction=0.0)
"""

PUBMED = "uiyunkim-hub/pubmed-abstract"
ADAPT = """
import json, sys
from hydra import compose, initialize_config_dir
from revocab import identity, schema
from revocab.cli import CONF, to_typed
from revocab.upstream import Upstream
schema.register()
identity.register()
with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
    text = Upstream(to_typed(compose("config", overrides=sys.argv[1:]))).text
corpus = text.corpus
parts = {name: [part[i] for i in range(len(part))] for name, part in vars(corpus).items() if name != "counts"}
print(json.dumps({**parts, "counts": corpus.counts, "scored": text.datasets}))
"""


@pytest.fixture
def hub(tmp_path):
    """Three parquet files of 1000 abstracts; gzipped JSON lines; a CSV file."""
    folder = tmp_path / "hub" / "owner" / "abstracts"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Abstracts\n")
    for shard in range(3):
        abstracts = [f"abstract {shard * 1000 + row}" for row in range(1000)]
        table = pyarrow.table({"pmid": list(range(1000)), "abstract": abstracts})
        pyarrow.parquet.write_table(table, folder / "data" / f"train-{shard:05d}-of-00003.parquet")
    for name, file, content in (
        ("lines", "train.jsonl.gz", gzip.compress(b'{"text": "one"}\n{"text": "two"}\n')),
        ("columns", "train.csv", b"text,id\none,1\ntwo,2\n"),
    ):
        other = tmp_path / "hub" / "owner" / name
        other.mkdir()
        (other / "README.md").write_text("# No licence\n")
        (other / file).write_bytes(content)
    with fake_hub.serving(tmp_path / "hub") as served:
        yield served


def run(code, hub, home, *arguments):
    changed = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_DATASETS_OFFLINE": "0"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **changed}, capture_output=True, text=True, timeout=120)


def test_a_data_set_is_read_file_by_file_and_a_second_read_downloads_nothing(hub, tmp_path):
    expected = [f"abstract {number}" for number in range(3000)]
    first = run(READ, hub, tmp_path / "home", "owner/abstracts:train")
    assert first.stdout.splitlines() == expected, first.stderr
    files = [name for name, _ in hub.downloads()]
    assert files == [f"data/train-{shard:05d}-of-00003.parquet" for shard in range(3)]
    hub.log.clear()
    again = run(READ, hub, tmp_path / "home", f"owner/abstracts@{fake_hub.REVISION}:train")
    assert again.stdout == first.stdout
    assert hub.downloads() == []


@pytest.mark.parametrize("name", ["lines", "columns"])
def test_other_kinds_of_files_are_read_too(hub, tmp_path, name):
    done = run(READ, hub, tmp_path / "home", f"owner/{name}:train")
    assert done.stdout.splitlines() == ["one", "two"], done.stderr


@pytest.mark.slow
@pytest.mark.survival
def test_a_download_that_broke_off_goes_on_where_it_was(hub, tmp_path):
    texts = [os.urandom(500_000).hex() for _ in range(24)]  # 24 MB: the client writes 10 MB at a time
    folder = hub.root / "owner" / "large"
    folder.mkdir()
    (folder / "README.md").write_text("# Large\n")
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    hub.cut_after = 11_000_000
    broken = run(READ, hub, tmp_path / "home", "owner/large:train")
    hub.cut_after = None
    if broken.returncode != 0:  # the client tries a few times by itself
        assert "refused: owner/large:train cannot be read" in broken.stderr
    again = run(READ, hub, tmp_path / "home", "owner/large:train")
    assert again.stdout.splitlines() == texts, again.stderr
    starts = [int(span.removeprefix("bytes=").split("-")[0]) for _, span in hub.downloads() if span]
    assert max(starts) >= 10_000_000
    assert sum(span is None for _, span in hub.downloads()) == 1  # never again from the beginning


def test_a_budget_leaves_files_alone_and_the_manifest_says_what_was_read(hub, tmp_path):
    done = run(BUILD, hub, tmp_path / "home", "owner/abstracts:train", tmp_path / "corpus")
    assert done.returncode == 0, done.stderr
    assert len(hub.downloads()) == 1
    (source,) = json.loads((tmp_path / "corpus" / "sources.json").read_text())
    assert source["input"] == "owner/abstracts:train"
    assert source["revision"] == fake_hub.REVISION
    assert source["licence"] == "cc-by-4.0"
    assert source["counts"]["kept"] == source["counts"]["read"] - 1 > 700


def test_of_the_corpus_that_is_also_the_evaluation_set_nothing_scored_is_trained_on(hub, tmp_path):
    """`corpus=pubmed_5gb` with the data set that it is read from: zero overlap, of documents and of 13 words."""
    abstracts = [
        "Background: " + " ".join(f"finding {number}.{place} was seen in patients" for place in range(6))
        for number in range(400)
    ]
    corrected = [f"Corrected. {text}" for text in abstracts[::4]]
    folder = hub.root / PUBMED
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Abstracts\n")
    table = pyarrow.table({"title": ["A title"] * 500, "abstract": abstracts + corrected})
    pyarrow.parquet.write_table(table, folder / "train.parquet")
    words = ["corpus=pubmed_5gb", "evaluation.max_samples=100"]
    places = [f"paths.cache_dir={tmp_path / 'cache'}", f"paths.output_dir={tmp_path}", "evaluation.max_characters=null"]
    done = run(ADAPT, hub, tmp_path / "home", *words, *places)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    scored, train = set(found["scored"]["pubmed-abstract-train"]), found["train"]
    smallest = sorted(abstracts + corrected, key=lambda text: hashlib.sha256(text.encode()).digest())[:100]
    assert scored == set(smallest)
    assert not scored & {*train, *found["heldout"]}
    bare = {text.removeprefix("Corrected. ") for text in [*smallest, *found["heldout"]]}
    assert not bare & {text.removeprefix("Corrected. ") for text in train}
    counts = found["counts"]
    assert counts["excluded"] == 100
    assert counts["contaminated"] > 20
    assert counts["read"] == 500 == counts["kept"] + counts["excluded"] + counts["contaminated"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("owner/other:train", "owner/other:train cannot be read from the Hub"),
        ("owner/abstracts:test", "the data set has the splits train"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(hub, tmp_path, spec, said):
    refused = run(READ, hub, tmp_path / "home", spec)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_an_unreachable_hub_is_one_line_that_names_the_ways_without(hub, tmp_path):
    hub.endpoint = "http://127.0.0.1:9"  # nobody listens there
    refused = run(READ, hub, tmp_path / "home", "owner/abstracts:train")
    assert refused.stderr.startswith(
        "refused: corpus.inputs: owner/abstracts:train is a Hub data set and the Hub cannot"
    )
    assert "corpus.inputs=[my_file.jsonl]" in refused.stderr
    assert "hf download owner/abstracts --repo-type dataset" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
