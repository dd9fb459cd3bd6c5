"""Harm to files."""


def flipped(content: bytes, place: int) -> bytes:
    """The content with bit number `place` flipped."""
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)
