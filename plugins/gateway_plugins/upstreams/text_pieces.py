"""A text that arrives in pieces, in linear time: adding to a string copies it."""

from gateway_plugins.upstreams.framing import DialectError

_MAX_SEARCHED = 64 * 1024 * 1024
"""Number of characters of one text that may be searched; a repetition elsewhere than at its end is rare."""


class TextPieces:
    """A text that grows."""

    def __init__(self, text: str = "") -> None:
        self._pieces = [text] if text else []
        self._size = len(text)
        self._searched = 0

    def __len__(self) -> int:
        return self._size

    def __str__(self) -> str:
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def add(self, piece: str) -> None:
        """Add text at the end."""
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)

    def missing(self, text: str) -> str:
        """Return the part of a text that follows this one if it begins with it; empty if this one contains the text.

        Raises:
            DialectError: The text was compared too often.
        """
        if len(text) >= self._size and text.startswith(str(self)):
            return text[self._size :]
        if len(text) > self._size or self._ends_with(text):
            return text if len(text) > self._size else ""
        self._searched += self._size
        if self._searched > _MAX_SEARCHED:
            raise DialectError("the upstream ended the parts of a text too often")
        return "" if text in str(self) else text

    def _ends_with(self, text: str) -> bool:
        end = len(text)
        for piece in reversed(self._pieces):
            if end <= len(piece):
                return piece.endswith(text[:end])
            if not text.endswith(piece, 0, end):
                return False
            end -= len(piece)
        return end == 0
