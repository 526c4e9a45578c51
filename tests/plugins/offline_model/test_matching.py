"""Words: what counts as the same, and what weighs how much."""

import pytest
from gateway_plugins.offline_model.matching import mentions, score, stem, stems


@pytest.mark.parametrize(
    ("one", "other"),
    [("invoices", "invoice"), ("cities", "city"), ("running", "run"), ("Prices", "pricing"), ("roll", "ROLLING")],
)
def test_forms_of_a_word_have_one_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


@pytest.mark.parametrize("word", ["ring", "bus", "bed", "as", "thing", "glass"])
def test_short_words_keep_their_body(word: str) -> None:
    assert len(stem(word)) >= 2


def test_identifiers_are_split_into_words() -> None:
    assert stems("getWeather_forecast-HTMLPage") == {stem(w) for w in ("weather", "forecast", "html", "page")}


def test_stop_words_do_not_count() -> None:
    assert score("Can you get me this?", ["get_it"], "Returns this for you") == 0


def test_a_name_weighs_more_than_a_description() -> None:
    text = "what is the weather"
    assert score(text, ["weather"], "") > score(text, ["lookup"], "the weather") > score(text, ["lookup"], "") == 0


def test_a_name_that_is_written_out_weighs_most() -> None:
    assert score("please call get_it", ["get_it"], "") > score("weather report", ["weather_report"], "") // 2
    assert mentions("Call Get It now", "get_it")
    assert not mentions("forget item", "get_it")


def test_words_can_be_left_out() -> None:
    assert score("weather", ["weather"], "weather", without=stems("weather")) == 0
