"""What is scored is not trained on: held-out sets and the corpus that they are taken out of."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from revocab import identity, initialisation, schema, vectors, vocabulary
from revocab.cli import to_typed
from revocab.errors import ConfigError, DataError
from revocab.runtime import side_by_side
from revocab.runtime.embedded import locate
from revocab.upstream import Upstream, gguf

CONF = Path(__file__).parents[1] / "conf"
DOCUMENTS = [f"Document {number} says that it is {number % 7} more than a multiple of 7." for number in range(300)]


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """Upstream of a config, in an empty folder that holds `text.jsonl`: the documents, the first ten of them twice."""
    monkeypatch.chdir(tmp_path)
    schema.register()
    identity.register()
    write(tmp_path / "text.jsonl", DOCUMENTS + DOCUMENTS[:10])

    def make(*overrides):
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            fixed = ["corpus=jsonl", "corpus.inputs=[text.jsonl]", "paths.cache_dir=cache", "paths.output_dir=here"]
            return Upstream(to_typed(compose("config", overrides=[*fixed, *overrides])))

    return make


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def everything(corpus):
    return {part[index] for part in (corpus.train, corpus.heldout) for index in range(len(part))}


@pytest.mark.parametrize("spelling", ["text.jsonl", "./text.jsonl", "folder/../text.jsonl"])
def test_a_data_set_that_is_also_trained_on_gives_its_scored_documents_up(upstream, tmp_path, spelling):
    (tmp_path / "folder").mkdir()
    made = upstream(f"evaluation.datasets=[{spelling}]", "evaluation.max_samples=40")
    scored = set(made.text.datasets["text"])
    trained = everything(made.text.corpus)
    assert len(scored) == 40
    assert not scored & trained
    assert scored | trained == set(DOCUMENTS)
    assert made.text.corpus.counts["excluded"] >= 40


def test_of_a_data_set_of_its_own_nothing_is_trained_on_also_what_is_not_scored(upstream, tmp_path):
    write(tmp_path / "held.jsonl", DOCUMENTS[100:200])
    made = upstream("evaluation.datasets=[held.jsonl]", "evaluation.max_samples=5")
    assert len(made.text.datasets["held"]) == 5
    assert everything(made.text.corpus) == set(DOCUMENTS[:100] + DOCUMENTS[200:])


def test_lines_that_are_dropped_do_not_hide_a_scored_document(upstream, tmp_path):
    write(tmp_path / "text.jsonl", [f"Short\n{text}" for text in DOCUMENTS])
    made = upstream("corpus.min_line_length=12", "evaluation.datasets=[text.jsonl]", "evaluation.max_samples=40")
    scored = {text.removeprefix("Short\n") for text in made.text.datasets["text"]}
    assert len(scored) == 40
    assert everything(made.text.corpus) == set(DOCUMENTS) - scored


def test_what_is_scored_is_chosen_once(upstream, monkeypatch):
    first = upstream("evaluation.datasets=[text.jsonl]").text.datasets
    monkeypatch.setattr("revocab.corpus.first_by_hash", None)
    assert upstream("evaluation.datasets=[text.jsonl]").text.datasets == first


@pytest.mark.parametrize("switch", ["evaluation.bpb=false", "evaluation.enabled=false"])
def test_what_could_be_scored_stays_out_of_the_corpus_also_where_it_is_not(upstream, switch):
    settings = ["evaluation.datasets=[text.jsonl]", "evaluation.max_samples=40"]
    with_scores, without = upstream(*settings), upstream(*settings, switch)
    assert without.text.datasets == {}
    assert without.text.folder == with_scores.text.folder


def test_questions_are_kept_out_of_the_corpus_with_the_documents_that_quote_them(upstream, tmp_path):
    asked = "Which of the following vessels carries blood away from the left ventricle of the heart"
    item = {"question": f"{asked}?", "choices": ["the aorta", "a vein"], "gold": 0}
    (tmp_path / "exam.jsonl").write_text(json.dumps(item) + "\n", encoding="utf-8")
    write(tmp_path / "text.jsonl", [*DOCUMENTS, f"An exam: {asked.upper()}, and so on."])
    made = upstream("evaluation.qa=true", "evaluation.tasks=[exam.jsonl]", "corpus.overlap_words=13")
    assert everything(made.text.corpus) == set(DOCUMENTS)
    (removed,) = map(json.loads, (made.text.folder / "removed.jsonl").read_text().splitlines())
    assert (removed["reason"], removed["dataset"]) == ("contaminated", "exam")
    assert len(everything(upstream().text.corpus)) == len(DOCUMENTS) + 1


def write_kinds(path, texts):
    rows = [{"text": text, "source": f"s{number % 3}", "area": "liver"} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_held_out_documents_keep_their_kinds(upstream, tmp_path):
    """Of the corpus's own held-out part, and of a data set."""
    write_kinds(tmp_path / "text.jsonl", DOCUMENTS)
    write_kinds(tmp_path / "held.jsonl", DOCUMENTS[:50])
    kinds = {text: f"s{number % 3}" for number, text in enumerate(DOCUMENTS)}
    for words in (["corpus.heldout_fraction=0.2"], ["evaluation.datasets=[held.jsonl]", "evaluation.max_samples=20"]):
        text = upstream(*words).text
        (name,) = text.datasets
        assert len(text.datasets[name]) > 15
        assert text.kinds[name] == [kinds[document] for document in text.heldout[name]]
    assert set(upstream("evaluation.kind_field=area", "corpus.heldout_fraction=0.2").text.kinds["heldout"]) == {"liver"}


def test_a_kind_field_that_no_document_has_is_refused(upstream):
    with pytest.raises(ConfigError, match=r"evaluation\.kind_field"):
        _ = upstream("evaluation.kind_field=colour", "corpus.heldout_fraction=0.2").text.kinds


def test_a_small_gguf_file_is_read_once_and_written_out(upstream, tmp_path, monkeypatch):
    """The embedded model stands for what is in the file, which is not read here."""
    embedded, read = locate("embedded:source_model", "models.source_model"), []
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "small.gguf").write_bytes(b"GGUF and more")

    def instead(load):
        def call(where, *, gguf_file=None, **others):
            read.extend([gguf_file] if gguf_file else [])
            return load(embedded if gguf_file else where, **others)

        return call

    monkeypatch.setattr(initialisation, "load_model", instead(initialisation.load_model))
    monkeypatch.setattr(vocabulary, "load_tokenizer", instead(vocabulary.load_tokenizer))
    for _ in range(2):
        made = upstream("models.source_model=folder", "models.gguf_file=small.gguf")
        model, tokenizer = made.models.load_source(), made.tokenizers.source
        assert read == ["small.gguf"] * 2, "once for the model and once for the tokenizer"
    expected = initialisation.load_model(embedded).state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in model.state_dict().items())
    given = vocabulary.load_tokenizer(embedded)
    assert tokenizer.backend_tokenizer.to_str() == given.backend_tokenizer.to_str()
    monkeypatch.setattr(gguf, "LARGEST", 4)
    made.models.load_source()
    assert read == ["small.gguf"] * 3, "a large file is read each time"


TIMED = {"manifest.json", "report.json", "alignment_report.json"}  # they say how long it took
SMALL = ("corpus.inputs=[embedded:sample.jsonl.zst]", "corpus.byte_budget=1000000", "embedding.dim=32")


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in TIMED}


def test_side_by_side_and_one_after_another_give_the_same_bits(upstream, monkeypatch):
    made = []
    for cores in (1, 8):
        monkeypatch.setattr(side_by_side, "available_cores", lambda cores=cores: cores)
        there = upstream(*SMALL, f"paths.cache_dir=cache_{cores}")
        there.begin()
        shards = there.tokens.source_shards, there.tokens.target_shards
        folders = [there.aligned.folder, *map(there.aligned.vectors.folder, shards)]
        folders += [folder for each in shards for folder in (each.tokens(), each.counts())]
        report = json.loads((folders[0] / "alignment_report.json").read_text()) | {"alignment_seconds": None}
        made.append([report, *((folder.name, files_of(folder)) for folder in folders)])
    assert made[0] == made[1]


def test_an_error_on_one_side_does_not_cost_the_other(upstream, monkeypatch):
    learn, target, error = vectors.cooccurrence_vectors, [], DataError("the target has no neighbours")
    monkeypatch.setattr(side_by_side, "available_cores", lambda: 8)

    def instead(counts, **settings):
        if counts.vocabulary_size == target[0]:
            raise error
        return learn(counts, **settings)

    made = upstream(*SMALL)
    target.append(len(made.tokenizers.target))
    monkeypatch.setattr(vectors, "cooccurrence_vectors", instead)
    with pytest.raises(DataError) as caught:
        _ = made.aligned.folder
    assert caught.value is error
    monkeypatch.setattr(vectors, "cooccurrence_vectors", None)
    assert files_of(made.aligned.vectors.folder(made.tokens.source_shards))


def test_an_alignment_that_is_there_needs_nothing_else(upstream, monkeypatch):
    folder = upstream(*SMALL).aligned.folder
    monkeypatch.setattr("revocab.upstream.alignment.side_by_side", None)
    assert upstream(*SMALL).aligned.folder == folder
