"""What ships with the package: `embedded:<name>` in a config stands for a file or folder of `revocab/assets`."""

from pathlib import Path

from revocab.errors import ConfigError

ASSETS = Path(__file__).parents[1] / "assets"
PREFIX = "embedded:"


def locate(name: str, key: str) -> str:
    """Turn `embedded:<name>` into its path; return any other name unchanged.

    Raises:
        ConfigError: there is nothing of that name in the package.
    """
    if not name.startswith(PREFIX):
        return name
    path = ASSETS / name.removeprefix(PREFIX)
    if not path.exists():
        known = sorted(PREFIX + p.name for p in ASSETS.iterdir() if p.name[0] not in "._")
        raise ConfigError(key, name, "one of " + ", ".join(known))
    return str(path)
