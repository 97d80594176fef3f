"""Words of texts against a tokeniser in plain Python; the encoder's columns; saved and cut logs."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorec import AutoRec
from autorec.data.encoder import Encoder
from autorec.data.entities import ITEM, USER
from autorec.data.hashing import hash_values
from autorec.data.labels import LabelMap
from autorec.data.remember import remember
from autorec.data.sources import open_source
from autorec.data.text import block, sentences, tokens, word_counts, words
from autorec.errors import ConfigError, DataError, SchemaError
from autorec.schema import Field, Kind, Role, Schema

ALPHABET = "aBz09 \t\n-_.,!'äÖéñøçЖдΑβ漢字かไทยनमस्ते١²€😀\u0301\u00a0"
TEXT = st.none() | st.text(ALPHABET, max_size=25)
TITLES = ["The  Old Man, the Sea", "old_man", None, "", " -- ", "Été à la mer", "éTÉ", "x" * 99]


def naive_words(text: str | None) -> list[str]:
    """A word is a run of letters, numbers and marks, in small letters."""
    found, word = [], ""
    for letter in (text or "").lower() + " ":
        if unicodedata.category(letter)[0] in "LNM":
            word += letter
        else:
            found += [word] if word else []
            word = ""
    return found


def naive_codes(text: str | None, buckets: int) -> list[int]:
    array = pa.array(naive_words(text), pa.string())
    return [2 + int(value) % buckets for value in hash_values(array)]


# ---- words


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, max_size=12), st.integers(1, 50), st.integers(0, 5))
def test_equals_the_naive_tokeniser(texts: list[str | None], buckets: int, width: int) -> None:
    array = pa.array(texts, pa.string())
    expected = [naive_words(text) for text in texts]
    found, lengths = words(array)
    assert found.to_pylist() == [word for row in expected for word in row]
    assert lengths.tolist() == [len(row) for row in expected]
    codes, counts = tokens(array, buckets)
    rows = [naive_codes(text, buckets) for text in texts]
    assert codes.tolist() == [code for row in rows for code in row]
    assert counts.tolist() == word_counts(array).tolist() == lengths.tolist()
    padded, counts = block(array, width, buckets)
    assert padded.tolist() == [(row[:width] + [0] * width)[:width] for row in rows]
    assert counts.tolist() == lengths.tolist()


def test_words_of_many_scripts() -> None:
    array = pa.array(["Crème brûlée, 2-for-1!", "ПРИВЕТ мир", "नमस्ते दुनिया", "ΣΟΦΙΑ_x"])
    assert words(array)[0].to_pylist() == [
        *("crème", "brûlée", "2", "for", "1", "привет", "мир", "नमस्ते", "दुनिया", "σοφια", "x"),
    ]


@pytest.mark.parametrize(
    "form",
    [
        pa.array(TITLES, pa.large_string()),
        pa.array(TITLES).dictionary_encode(),
        pa.chunked_array([TITLES[:3], TITLES[3:]]),
        pa.array([None, *TITLES]).slice(1),
    ],
    ids=["large", "dictionary", "chunks", "slice"],
)
def test_every_layout_of_text(form: Any) -> None:
    codes, counts = block(form, 4, 100)
    rows = [naive_codes(text, 100)[:4] for text in TITLES]
    assert codes.tolist() == [row + [0] * (4 - len(row)) for row in rows]
    assert counts.tolist() == [5, 2, 0, 0, 0, 4, 1, 1]


def test_texts_are_cut_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    array = pa.array([f"word{k} of row {k % 7}" for k in range(40)] + TITLES)
    codes, counts = block(array, 5, 100)
    monkeypatch.setattr("autorec.data.text._ROWS", 3)
    assert np.array_equal(block(array, 5, 100)[0], codes)
    assert np.array_equal(word_counts(array), counts)


def test_what_is_no_text() -> None:
    assert block(pa.array([12, None]), 2, 9)[0].tolist() == [[*naive_codes("12", 9), 0], [0, 0]]
    assert block(pa.nulls(2), 1)[0].tolist() == [[0], [0]]
    with pytest.raises(DataError, match="'title' has type list"):
        block(pa.array([["a"]]), 1, column="title")


def test_sentences_are_told_from_names() -> None:
    many = [f"a title of words {k}" for k in range(1001)]
    assert sentences(pa.array(many))
    assert not sentences(pa.array(many[:1000]))
    assert not sentences(pa.array([f"0f-{k:04x} 12 34 56 a b c" for k in range(2000)]))
    assert sentences(pa.array([f"{'' if k % 2 else 'the new '}«thing» n{k}" for k in range(9000)]))


# ---- the encoder


def stream(table: pa.Table, rows: int = 3) -> Callable[[], Iterator[pa.RecordBatch]]:
    return lambda: iter(table.to_batches(max_chunksize=rows))


TABLE = pa.table(
    {
        "n": np.linspace(0, 1, len(TITLES)),
        "title": pa.array(TITLES),
        "tags": pa.array([["a"], [], None, ["b", "a"]] * 2),
        "query": pa.array(["a b c", None] * 4),
        "i": np.arange(len(TITLES)) % 3,
    }
)
KINDS = {"n": Kind.NUMERIC, "tags": Kind.LIST, "title": Kind.TEXT, "query": Kind.TEXT}


def schema_of(table: pa.Table) -> Schema:
    return Schema(tuple(Field(name, KINDS.get(name, Kind.ID)) for name in table.column_names))


def fitted(table: pa.Table = TABLE, rows: int = 3, **options: Any) -> Encoder:
    return Encoder.fit(stream(table, rows), schema_of(table), min_count=1, **options)


def test_a_text_is_a_list_of_words_and_a_length() -> None:
    encoder = fitted(max_list_length=3, text_buckets=50)
    layout = encoder.layout
    assert [field.name for field in layout.sparse] == ["i", "n#bin"]
    assert [(f.name, f.rows, f.length) for f in layout.lists] == [
        ("title", 52, 3),
        ("tags", 4, 2),
        ("query", 52, 3),
    ]
    assert [(f.name, f.nullable) for f in layout.dense] == [
        ("n", False),
        ("title#length", False),
        ("query#length", False),
    ]
    out = encoder.encode(TABLE)
    rows = [naive_codes(text, 50)[:3] for text in TITLES]
    assert out.lists["title"].tolist() == [row + [0] * (3 - len(row)) for row in rows]
    logs = np.log1p([len(naive_words(text)) for text in TITLES])
    np.testing.assert_allclose(out.dense[:, 1], (logs - logs.mean()) / logs.std(), atol=1e-6)
    np.testing.assert_allclose(out.dense[:, 2], [1.0, -1.0] * 4, atol=1e-6)
    longer = encoder.encode(TABLE.set_column(1, "title", pa.array(["w " * 500] * len(TITLES))))
    scaled = (math.log1p(500) - logs.mean()) / logs.std()
    np.testing.assert_allclose(longer.dense[:, 1], scaled, rtol=1e-5)  # not cut at three words
    with pytest.raises(SchemaError, match="no column 'title' with a vocabulary"):
        encoder.vocabulary("title")


def test_pieces_equal_the_whole() -> None:
    whole = fitted(rows=100)
    for cut in (1, 3, 5):
        pieces = fitted(rows=cut)
        assert pieces.layout == whole.layout
        left, right = pieces.numeric("title#length"), whole.numeric("title#length")
        assert left.edges == right.edges
        np.testing.assert_allclose([left.mean, left.std], [right.mean, right.std], rtol=1e-12)
        parts = [whole.encode(batch) for batch in TABLE.to_batches(max_chunksize=cut)]
        expected = whole.encode(TABLE)
        assert np.array_equal(np.concatenate([p.dense for p in parts]), expected.dense)
        for name in ("title", "query", "tags"):
            joined = np.concatenate([p.lists[name] for p in parts])
            assert np.array_equal(joined, expected.lists[name])


def test_a_loaded_encoder_is_the_saved_one(tmp_path: Path) -> None:
    encoder = fitted(text_buckets=77, max_list_length=4)
    encoder.save(tmp_path / "encoder")
    loaded = Encoder.load(tmp_path / "encoder")
    assert loaded.layout == encoder.layout and loaded.settings == encoder.settings
    left, right = encoder.encode(TABLE), loaded.encode(TABLE)
    assert left.codes.tobytes() == right.codes.tobytes()
    assert left.dense.tobytes() == right.dense.tobytes()
    for name in left.lists:
        assert left.lists[name].tobytes() == right.lists[name].tobytes()


def test_an_encoder_of_the_format_before_is_read(tmp_path: Path) -> None:
    table = TABLE.select(["n", "tags", "i"])
    encoder = fitted(table)
    encoder.save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "encoder.json"
    body = json.loads(file.read_text())
    assert body.pop("format") == 2 and body.pop("sha256")
    assert body["settings"].pop("text_buckets") == 4096
    old = {"format": 1, **body}
    told = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({**old, "sha256": told}))
    loaded = Encoder.load(tmp_path / "encoder")
    assert loaded.layout == encoder.layout
    assert np.array_equal(loaded.encode(table).codes, encoder.encode(table).codes)


def test_a_text_that_cannot_be_fitted() -> None:
    with pytest.raises(ConfigError, match="text_buckets must be an integer of at least 1"):
        fitted(text_buckets=0)
    clash = TABLE.append_column("title#length", pa.array(range(len(TITLES))))
    with pytest.raises(SchemaError, match="the length of 'title' is called 'title#length'"):
        fitted(clash)
    empty = fitted(TABLE.set_column(1, "title", pa.nulls(len(TITLES), pa.string())))
    assert empty.layout.lists[0].length == 1
    assert empty.encode(TABLE).dense[:, 1].tolist()[2] == 0.0


# ---- what is remembered, and a fit


def log(rows: int, seed: int = 0) -> tuple[pa.Table, Schema]:
    """Clicks follow one word of the item's title, and nothing else; most items have few rows."""
    rng = np.random.default_rng(seed)
    items = rows
    noise = [f"{a}{b}" for a in "bdfgk" for b in ("an", "el", "or", "um")]
    good = rng.random(items) < 0.5
    titles = [
        " ".join(rng.permutation([*rng.choice(noise, 3), "sale" if one else "stock"]))
        for one in good
    ]
    item = rng.integers(0, items, rows)
    click = rng.random(rows) < np.where(good[item], 0.8, 0.2)
    table = pa.table(
        {
            "user": rng.integers(0, 200, rows),
            "item": item,
            "title": [titles[i] for i in item],
            "query": [f"find {noise[k]} {noise[(k * 7) % 20]}" for k in rng.integers(0, 20, rows)],
            "click": click.astype(np.int8),
        }
    )
    kinds = {"title": Kind.TEXT, "query": Kind.TEXT, "click": Kind.CATEGORICAL}
    roles = {"user": Role.USER, "item": Role.ITEM, "click": Role.LABEL}
    fields = [
        Field(c.name, kinds.get(c.name, Kind.ID), roles.get(c.name, Role.FEATURE), str(c.type))
        for c in table.schema
    ]
    return table, Schema(tuple(fields))


def test_texts_are_remembered_with_what_they_belong_to() -> None:
    table, schema = log(3000)
    source = open_source(table)
    encoder = Encoder.fit(lambda: source.batches(), schema)
    found = remember(source, schema, encoder, LabelMap(kind="binary", negative=0, positive=1))
    assert found.sides == {"user": "user", "item": "item", "title": "item", "query": "context"}
    assert found.usual("context")["query"].startswith("find ")
    pool = found.some(ITEM, [5, 10**9])
    known = table["title"][table["item"].to_pylist().index(5)].as_py()
    assert pool.table["title"].to_pylist() == [known, found.defaults["title"][0].as_py()]
    assert pool.given == {"title#length"}, "the item decides the length of its title"
    assert found.all(USER).given == set()
    given = pa.table({"item": [5], "query": ["a b"]})
    assert found.some(ITEM, given).given == {"title#length", "item", "query", "query#length"}


def test_titles_help_a_fit(tmp_path: Path) -> None:
    table, _ = log(3000)
    fits = {}
    for name, columns in {"with": table, "without": table.drop_columns(["title"])}.items():
        fits[name] = AutoRec(
            "ctr",
            label="click",
            user_id="user",
            item_id="item",
            feature_types={n: "text" for n in ("title", "query") if n in columns.column_names},
            path=tmp_path / name,
            verbosity=0,
        )
        fits[name].fit(
            columns, n_trials=2, time_limit=60, refit=False, features=0, num_workers=1, mlflow=False
        )
    scores = {name: one.best_score_ for name, one in fits.items()}
    assert scores["with"] > scores["without"] + 0.05, scores
    ranked = fits["with"].rank(users=[7], k=20, filter_seen=False)
    _agree(fits["with"], ranked, table)


def _agree(ar: AutoRec, ranked: Any, table: pa.Table) -> None:
    """The score of a ranked pair is that of a row with the item's own title."""
    titles = dict(zip(table["item"].to_pylist(), table["title"].to_pylist(), strict=True))
    query = ar._need()[1].entities.usual("context")["query"]
    frame = pa.table(
        {
            "user": ranked["user_id"].to_numpy(),
            "item": ranked["item_id"].to_numpy(),
            "title": [titles[i] for i in ranked["item_id"]],
            "query": [query] * len(ranked),
        }
    )
    np.testing.assert_allclose(ar.predict_proba(frame), ranked["score"], atol=1e-6)
