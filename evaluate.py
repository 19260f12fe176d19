"""Score models on held-out text: bits per byte with intervals and differences, compression, terms, speed.

python evaluate.py                                    the embedded source model
python evaluate.py models.source_model=FOLDER evaluation.models=[FOLDER,FOLDER] evaluation.datasets=[FILE]
"""

from revocab import cli

if __name__ == "__main__":
    cli.run(cli.task("evaluate"))
