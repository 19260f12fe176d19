"""Align the target vocabulary to the source vocabulary, and report how well.

python align.py                                       the embedded default
python align.py alignment=procrustes threshold=t040
"""

from revocab import cli

if __name__ == "__main__":
    cli.run(cli.task("align"))
