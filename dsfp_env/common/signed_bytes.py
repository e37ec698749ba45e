"""Content with its checksum behind it, in one file: what is read is what was written, or nothing."""

from __future__ import annotations

import hashlib

_DIGEST = 32  # bytes of SHA-256


def signed(content: bytes) -> bytes:
    """Content, and its SHA-256 behind it."""
    return content + hashlib.sha256(content).digest()


def content_of(whole: bytes) -> bytes:
    """What `signed` was given.

    Raises:
        ValueError: If it is damaged, or was not signed so.
    """
    content, digest = whole[:-_DIGEST], whole[-_DIGEST:]
    if digest != hashlib.sha256(content).digest():
        raise ValueError("its checksum does not match")
    return content
