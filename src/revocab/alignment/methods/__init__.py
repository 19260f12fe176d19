"""One file per method of alignment; the file's name is the method's name. See `alignment/registry.py`."""
