"""Which files an input stands for, what identifies them, and what is refused."""

import gzip
import hashlib

import pytest
import zstandard

from revocab.corpus.inputs import HubSpec, dataset_name, fingerprint, resolve_inputs
from revocab.errors import DataError

LINE = b'{"text": "heart"}\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("owner/name:train", ("owner/name", None, None, "train")),
        ("qiaojin/PubMedQA:pqa_labeled:train", ("qiaojin/PubMedQA", None, "pqa_labeled", "train")),
        ("owner/name@v1.0:cfg:train", ("owner/name", "v1.0", "cfg", "train")),
        ("owner/name@refs/convert/parquet:train", ("owner/name", "refs/convert/parquet", None, "train")),
        ("allenai/c4:en.noblocklist:validation", ("allenai/c4", None, "en.noblocklist", "validation")),
    ],
)
def test_hub_specs_are_recognised_and_written_back(text, parts):
    spec = HubSpec.parse(text)
    assert spec == HubSpec(*parts)
    assert str(spec) == text


@pytest.mark.parametrize(
    "text", ["owner/name", "name:train", "a/b/c:train", "/data/x:train", "./a/b:train", "owner/name:", "a/b:c:d:e", ""]
)
def test_other_names_are_no_hub_specs(text):
    assert HubSpec.parse(text) is None


def test_a_path_that_exists_beats_a_hub_spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "name:train"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(LINE)
    (resolved,) = resolve_inputs(["owner/name:train"])
    assert not isinstance(resolved, HubSpec)
    assert resolved.name == "a.jsonl"


def test_a_folder_is_its_text_files_sorted_without_hidden_and_other_ones(tmp_path):
    for name in ("b.jsonl", "a/z.txt", "c.txt.gz", ".hidden.jsonl", ".git/d.txt", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(LINE) if name.endswith(".gz") else LINE)
    names = [str(path.relative_to(tmp_path)) for path in resolve_inputs([str(tmp_path)])]
    assert names == ["a/z.txt", "b.jsonl", "c.txt.gz"]


def test_inputs_keep_their_order(tmp_path):
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_bytes(b"text")
    given = [str(tmp_path / "b.txt"), "owner/name:train", str(tmp_path / "a.txt")]
    assert [str(each) for each in resolve_inputs(given)] == given


def _zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.txt.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("a.jsonl.zst", _zst(b""), "is empty"),
        ("a.txt", b"PK\x03\x04\x00\x00", "byte 4 is NUL"),
        ("a.jsonl.gz", LINE, "damaged or not gz-compressed"),
        ("a.jsonl.zst", LINE, "damaged or not zst-compressed"),
        ("a.txt.gz", gzip.compress(LINE * 100, mtime=0)[:30], "damaged"),
        ("a.parquet", b"PAR1", "damaged or no parquet"),
        ("a.csv", LINE, "unsupported kind"),
        ("a.gz", gzip.compress(LINE, mtime=0), "unsupported kind"),
        ("a.json", b"{}", "unsupported kind"),
    ],
)
def test_a_file_that_cannot_be_read_as_text_is_one_line_that_names_it(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        resolve_inputs([str(path)])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_paths_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="no file or folder"):
        resolve_inputs([str(tmp_path / "nothing.jsonl")])
    with pytest.raises(DataError, match="holds no text"):
        resolve_inputs([str(tmp_path)])
    with pytest.raises(DataError, match="No input is given"):
        resolve_inputs([])


def test_fingerprint_is_content_and_not_place(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_bytes(LINE)
    first, second = (fingerprint([str(tmp_path / folder)]) for folder in ("one", "two"))
    assert first == second == [{"name": "a.jsonl", "bytes": len(LINE), "sha256": hashlib.sha256(LINE).hexdigest()}]
    (tmp_path / "two" / "a.jsonl").write_bytes(LINE.replace(b"heart", b"liver"))
    assert fingerprint([str(tmp_path / "two")]) != first


def test_fingerprint_of_a_hub_data_set_is_its_spec():
    assert fingerprint(["owner/name:config:train"]) == [{"hub": "owner/name:config:train"}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/data/bio.heldout.jsonl.zst", "bio.heldout"),
        ("general.txt", "general"),
        ("x/pubmed.jsonl.gz", "pubmed"),
        ("folder/of/texts", "texts"),
        ("owner/name:test", "name-test"),
        ("owner/name:config:test", "name-config-test"),
    ],
)
def test_dataset_name_is_the_stem(name, expected):
    assert dataset_name(name) == expected
