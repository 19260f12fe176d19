"""Giving a model its new vocabulary: new tables = W @ old tables, and nothing else in the model changes.

`load_model` reads any causal language model in float32, `replace_vocabulary` multiplies its tables by the alignment's
W, `save_model` writes a plain Hugging Face folder; `restored_tables` undoes a trial.
"""

from revocab.initialisation.loading import load_model
from revocab.initialisation.restoring import restored_tables
from revocab.initialisation.saving import save_adapter, save_model
from revocab.initialisation.tables import replace_vocabulary

__all__ = ["load_model", "replace_vocabulary", "restored_tables", "save_adapter", "save_model"]
