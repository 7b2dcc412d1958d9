"""Templates: escapes, braces, missing values, and names that are more than names."""

import pytest

from moembed.corpus.template import Template
from moembed.errors import InputError


def text(template, **values):
    return Template.parse(template).render(values)[0]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (r"{title}\n{text}", "T\nx"),
        (r"{title}\t{text}\\n", "T\tx\\n"),
        ("{title}{text}", "Tx"),
        ("{{{title}}} {text}", "{T} x"),
        ("a: {text}", "a: x"),
        ("{text} {text}", "x x"),
    ],
)
def test_escapes_and_braces(template, expected):
    assert text(template, title="T", text="x") == expected


def test_missing_values_are_empty_and_data_stay_data():
    for title in (None, float("nan")):
        assert text("{title}|{text}", title=title, text="a {text} \\n") == "|a {text} \\n"
    assert text("{title}|{text}", text="a") == "|a"
    assert text("{a} {b} {c}", a=3, b=True, c=0.5) == "3 true 0.5"


def test_a_row_without_any_field_has_no_text():
    template = Template.parse("{title} {text}")
    assert template.render({"title": None}) == (None, "none of the template's fields is there: title, text")
    assert "is an object" in template.render({"title": {"a": 1}})[1]
    assert "is an array" in template.render({"title": []})[1]


@pytest.mark.parametrize(
    "template",
    [
        "{title.__class__}",
        "{title[0]}",
        "{title!r}",
        "{title:>10}",
        "{}",
        "no field",
        r"{title}\x41",
        "{title}\\",
        "{title",
        "title}",
        "{a{b}}",
        "",
    ],
)
def test_templates_that_are_refused(template):
    with pytest.raises(InputError, match="template = "):
        Template.parse(template)
