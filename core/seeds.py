"""Randomness as a function of names and numbers, never of what ran before."""

import hashlib

import torch


def derive(*parts: int | str) -> int:
    """A 63-bit seed from any mixture of numbers and names; the same parts give the same seed everywhere."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator for ``parts`` (see :func:`derive`)."""
    return torch.Generator().manual_seed(derive(*parts))
