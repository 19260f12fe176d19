"""What a job needs before it trains: text, questions, tokenizers, tokens, vectors, alignment, scores of known models.

Each is made once, kept in the cache under a hash of what decides it, and shared by every job that needs the same.
"""

from revocab.runtime.retry import Retries
from revocab.runtime.side_by_side import side_by_side
from revocab.runtime.threads import start_device
from revocab.schema import Config
from revocab.upstream.alignment import Aligned
from revocab.upstream.harness import Harness
from revocab.upstream.models import Models
from revocab.upstream.questions import Questions
from revocab.upstream.scores import Scorer
from revocab.upstream.text import Text
from revocab.upstream.tokenizers import Tokenizers
from revocab.upstream.tokens import Tokens
from revocab.upstream.workplace import Workplace

__all__ = ["Upstream"]


class Upstream:
    """Artifacts of one configuration, each made when it is first asked for; its parts in the order of the data.

    A part asks those before it for what it needs, never one behind it.
    """

    def __init__(self, config: Config, retries: Retries | None = None) -> None:
        place = Workplace(config, retries or Retries(config.pipeline.max_retries, config.pipeline.retry_backoff))
        self.device, self.cache = place.device, place.cache
        self.models = Models(place)
        self.questions = Questions(place)
        self.text = Text(place, self.questions)
        self.tokenizers = Tokenizers(place, self.text)
        self.tokens = Tokens(place, self.text, self.tokenizers)
        self.aligned = Aligned(place, self.text, self.tokenizers, self.tokens)
        self.scorer = Scorer(place, self.text, self.questions)
        self.harness = Harness(place)

    def begin(self) -> None:
        """Make what all else rests on, the corpus and the tokenizers, at the same time where there are cores for it."""
        side_by_side(
            {
                "corpus": lambda: self.text.folder,
                "tokenizers": lambda: (self.tokenizers.source, self.tokenizers.given_target),
                "device": lambda: start_device(self.device),
            }
        )
