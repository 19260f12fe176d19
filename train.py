"""Move a model to another vocabulary: align, initialise, train the tables, train the body, score every step.

python train.py                                       the embedded default, on a laptop
python train.py -m experiment=comparison_table        the presets side by side
python train.py -m vocab.lr_stage1=2e-5,6.4e-4        two jobs, one table
"""

from revocab import cli

if __name__ == "__main__":
    cli.run(cli.task("train"))
