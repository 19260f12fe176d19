"""One seed for a job; every use of randomness derives its own from it by name, so that no two are correlated."""

import hashlib


def derive(seed: int, name: str) -> int:
    """A seed in [0, 2^31) for the use called `name`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little") >> 1
