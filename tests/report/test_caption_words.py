import pytest

from dask_dedup.report.caption_words import mark_words


def marked(caption, other):
    return "".join(
        f"[{text}]" if is_other else text for text, is_other in mark_words(caption, other)
    )


@pytest.mark.parametrize(
    ("caption", "other", "expected"),
    [
        ("a red star", "a blue star", "a [red ]star"),
        ("a star", "a red star", "a star"),
        ("new words only", "old text", "[new words only]"),
        ("same", "same", "same"),
        ("  same \n text ", "same text", "same text"),
        ("alone", None, "alone"),
        ("alone", "", "alone"),
        (None, "other", ""),
        ("   ", "other", ""),
        ("one two two three", "one two three", "one two [two ]three"),
    ],
)
def test_words_that_the_other_lacks_are_marked(caption, other, expected):
    assert marked(caption, other) == expected


def test_a_long_caption_is_shortened_and_nothing_is_lost_before():
    text = " ".join(str(i) for i in range(5000))
    shown = "".join(words.text for words in mark_words(text, "0 1 2"))
    assert len(shown) <= 240
    assert shown.endswith("…")
    assert text.startswith(shown.rstrip("…").rstrip())


def test_a_caption_without_spaces_is_shortened():
    assert len(mark_words("x" * 100_000, "y" * 100_000)[0].text) == 240
