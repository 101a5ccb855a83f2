"""What differs in a caption: its words, each marked where the caption compared with lacks it."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

__all__ = ["Words", "mark_words"]

_MOST_CHARACTERS = 240
_WORD = re.compile(r"\S+\s*|\s+")


class Words(NamedTuple):
    """Some neighbouring words of a caption.

    Attributes
    ----------
    text : str
    is_other : bool
        Whether the other caption lacks them, at this place.
    """

    text: str
    is_other: bool


def mark_words(caption: str | None, other: str | None) -> list[Words]:
    """Return a caption, shortened, with the words marked that another has not.

    Parameters
    ----------
    caption : str or None
    other : str or None
        The one compared with; without one, nothing is marked.

    Examples
    --------
    >>> [tuple(words) for words in mark_words("a red star", "a star")]
    [('a ', False), ('red ', True), ('star', False)]
    """
    text = _shortened(caption or "")
    if not text or not other or text == _shortened(other):
        return [Words(text, False)] if text else []
    words, others = _WORD.findall(text), _WORD.findall(_shortened(other))
    stripped = [word.strip() for word in words], [word.strip() for word in others]
    found: list[Words] = []
    matcher = SequenceMatcher(None, stripped[1], stripped[0], autojunk=False)
    for kind, _, _, first, last in matcher.get_opcodes():
        if first < last:
            found.append(Words("".join(words[first:last]), kind != "equal"))
    return found


def _shortened(text: str) -> str:
    text = " ".join(text[: 4 * _MOST_CHARACTERS].split())
    if len(text) <= _MOST_CHARACTERS:
        return text
    return text[: _MOST_CHARACTERS - 1].rstrip() + "…"
