"""YAML → plain data: scalars of YAML 1.2, merges, repeated keys, and files that are no YAML."""

import pytest

from esm.config.document import MAXIMUM_BYTES, Document, read_document, resolve


def read(text: str | bytes, **environ: str) -> Document:
    return read_document("f.yaml", text if isinstance(text, bytes) else text.encode(), environ)


def problems(text: str | bytes, **environ: str) -> list[str]:
    return [str(mistake) for mistake in read(text, **environ).mistakes]


@pytest.mark.parametrize(
    "text, value",
    [
        ("012345670123", "012345670123"),  # an account id; YAML 1.1: 1402433619
        ("0123", "0123"),
        ("-012", "-012"),
        ("22:22", "22:22"),  # YAML 1.1: 1342
        ("190:20:30", "190:20:30"),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("y", "y"),
        ("0", 0),
        ("-1", -1),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.2.3.4", "1.2.3.4"),
        ("00.5", "00.5"),
        (".inf", ".inf"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("~", None),
        ("null", None),
        ("", None),
        ("2026-01-31", "2026-01-31"),
        ("9" * 41, "9" * 41),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says_but_for_leading_zeros(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)
    assert read(f"a: {text}").data == {"a": value}


@pytest.mark.parametrize("text", ["'12'", '"12"', "!!str 12", "! 12", "|-\n 12", ">-\n 12"])
def test_what_is_quoted_stays_text(text: str) -> None:
    assert read(f"a: {text}").data == {"a": "12"}


def test_keys_and_list_items_know_their_lines() -> None:
    document = read("# head\na:\n  b: 1\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n")
    assert document.data == {"a": {"b": 1, "c": ["x", {"d": 2, "e": 3}]}}
    assert document.lines == {
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "d"): 6,
        ("a", "c", 1, "e"): 7,
    }


def test_every_repeated_key_is_a_mistake_and_the_first_one_counts() -> None:
    document = read("a: 1\nb: {c: 1, c: 2}\na: 3\na: 4\n")
    assert [str(each) for each in document.mistakes] == [
        "f.yaml:2: b.c: is given twice, first on line 2",
        "f.yaml:3: a: is given twice, first on line 1",
        "f.yaml:4: a: is given twice, first on line 1",
    ]
    assert document.data == {"a": 1, "b": {"c": 1}}


def test_own_keys_win_over_merged_ones_and_the_first_of_several_merges_wins() -> None:
    text = "x: &x {a: 1, b: 1, c: 1}\ny: &y {<<: *x, b: 2, d: 2}\nz: {<<: [*y, *x], a: 3}\nw: {a: 4, <<: *x}\n"
    document = read(text)
    assert document.mistakes == []
    assert document.data["z"] == {"a": 3, "b": 2, "d": 2, "c": 1}
    assert document.data["w"] == {"a": 4, "b": 1, "c": 1}
    assert "<<" not in str(document.data)


def test_a_quoted_merge_key_is_a_key() -> None:
    assert read("a: {'<<': 1}").data == {"a": {"<<": 1}}


@pytest.mark.parametrize("value", ["1", "[1]", "[{}, x]", "null"])
def test_a_merge_takes_mappings_only(value: str) -> None:
    assert problems(f"a:\n  <<: {value}\n") == ["f.yaml:2: << takes a mapping or a list of mappings, written as *name"]


def test_aliases_are_written_out_wherever_they_stand() -> None:
    assert read("a: &a [1, &b x]\nb: *a\nc: *b\n").data == {"a": [1, "x"], "b": [1, "x"], "c": "x"}


@pytest.mark.parametrize(
    "text, said",
    [
        (b"", "f.yaml: is empty, expected settings and mappings"),
        (b"# only a comment\n", "f.yaml: is empty, expected settings and mappings"),
        (b"---\n...\n", "f.yaml: is empty, expected settings and mappings"),
        (b"- a\n", "f.yaml:1: a list, expected a mapping with sections like mappings:"),
        (b"\nhello\n", "f.yaml:2: plain text, expected a mapping with sections like mappings:"),
        (b"a: \xe9\n", "f.yaml:1: is not text in UTF-8"),
        (b"a: b\n\xff\xfe", "f.yaml:2: is not text in UTF-8"),
        (b"\x7fELF\x00\x01", "f.yaml:1: holds control characters; is it a text file?"),
        (b"a: 1\nb: \x07\n", "f.yaml:2: holds control characters; is it a text file?"),
        (b"a: 1\n---\nb: 2\n", "f.yaml:2: a second document begins here, expected one a file"),
        (b"a:\n\t- b\n", "f.yaml:2: is indented with a tab, YAML takes spaces"),
        (
            b"a: !!python/name:x y\n",
            "f.yaml:1: the tag tag:yaml.org,2002:python/name:x is not understood, expected none",
        ),
        (b"a: !x {}\n", "f.yaml:1: the tag !x is not understood, expected none"),
        (b"a: 1\nb: *nobody\n", "f.yaml:2: *nobody names nothing; expected &nobody further up"),
        (b"a: &a\n  b: *a\n", "f.yaml:2: *a stands inside what it names"),
        (b"a:\n  [1]: 2\n", "f.yaml:2: a list or mapping stands where a key was expected"),
        (b"a: " + b"[" * 60 + b"]" * 60, "f.yaml:1: is nested more than 50 levels deep"),
        (b"a: " + b"x" * MAXIMUM_BYTES, f"f.yaml: has {MAXIMUM_BYTES + 3:,} bytes, at most {MAXIMUM_BYTES:,}"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_what_cannot_be_read_is_one_sentence_with_its_line(text: bytes, said: str) -> None:
    assert problems(text) == [said]


def test_broken_syntax_names_the_line() -> None:
    (said,) = problems("a: 1\nb: [1\nc: 2\n")
    assert said.startswith("f.yaml:3: is not YAML: ")


def test_an_unquoted_variable_in_flow_style_is_explained() -> None:
    assert problems("a: 1\nb: {c: ${D}, e: 1}\n") == [
        (
            "f.yaml:2: is not YAML: while parsing a flow mapping: did not find expected ',' or '}'; "
            "inside {} and [], ${NAME} stands in quotes"
        )
    ]


def test_aliases_cannot_make_a_short_file_endless() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert problems("\n".join(lines)) == ["f.yaml:1: holds more than 200,000 values once its aliases are written out"]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    document = read(b"\xef\xbb\xbfa: 1\r\nb: two\r\n")
    assert document.data == {"a": 1, "b": "two"}
    assert document.lines == {("a",): 1, ("b",): 2}


def test_what_a_variable_brings_is_text_and_never_yaml() -> None:
    document = read("a: ${A}\nb: ${B}\nc: 'x${A}y'\n", A="0123", B="{x: [1]}")
    assert document.data == {"a": "0123", "b": "{x: [1]}", "c": "x0123y"}
    assert document.templates == {("a",): "${A}", ("b",): "${B}", ("c",): "x${A}y"}


def test_a_plain_variable_that_is_empty_leaves_the_key_unset_and_a_quoted_one_is_empty_text() -> None:
    assert read("a: ${A}\nb: '${A}'\n", A="").data == {"a": None, "b": ""}


def test_a_missing_variable_is_a_mistake_at_its_place() -> None:
    assert problems("a:\n  - ${NOBODY}\n") == [
        "f.yaml:2: a[0]: the environment has no NOBODY; set it, or write ${NOBODY:-default}"
    ]
