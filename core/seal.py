"""Check sums inside JSON texts: every flipped bit of a journal line or a header shows."""

from __future__ import annotations

import hashlib

TAIL = len(',"sum":"0123456789abcdef"}')
"""Bytes of the last entry."""


def sealed(text: str) -> str:
    """A JSON mapping as text with the digest of all that stands before as its last entry.

    >>> sealed('{"a":1}')
    '{"a":1,"sum":"47aeea40da335f29"}'
    """
    body = text.rstrip()[:-1].rstrip()
    return f'{body},"sum":"{_sum(body.encode())}"}}'


def damaged(data: bytes) -> bool:
    """Whether a text that `sealed` made, without what follows it, is no longer what it was.

    >>> damaged(sealed('{"a":1}').encode()), damaged(b'{"a":2,"sum":"47aeea40da335f29"}')
    (False, True)
    """
    return data[-TAIL:] != f',"sum":"{_sum(data[:-TAIL])}"}}'.encode()


def _sum(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=8).hexdigest()
