"""revocab moves a causal language model to another vocabulary, and measures every choice on the way."""

__version__ = "0.1.0"
