"""Text of others in a page: laws that hold of any text."""

import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from fedsup_deploy.report.embedding import embedded, readable, shown

texts = st.text(max_size=40)
documents: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(documents)
def test_nothing_in_a_script_element_ends_it_and_all_of_it_comes_back(document: JsonValue) -> None:
    text = embedded(document)
    assert text.isascii()
    assert not set(text) & set("<>&\n\r")
    assert json.loads(text) == readable(document)


@given(documents)
def test_what_was_made_readable_stays_as_it_is(document: JsonValue) -> None:
    assert readable(readable(document)) == readable(document)


@given(st.text())
def test_only_signs_are_shown(text: str) -> None:
    found = shown(text)
    assert isinstance(found, str)
    assert found.isprintable()


def test_what_is_no_text_is_shown_as_it_is() -> None:
    """Such as markup that the template itself has made."""
    markup = type("Markup", (str,), {})("<b>\n</b>")
    assert shown(markup) is markup
    assert shown(3) == 3


def test_the_ways_out_of_a_script_are_closed() -> None:
    attack = "</script><!--<script>\u2028\u2029\u202e\x07\ud800"
    text = embedded({attack: attack})
    assert "script>" not in text
    as_escapes = "</script><!--<script>\\u2028\\u2029\\u202e\\x07\\ud800"
    assert json.loads(text) == {as_escapes: as_escapes}
