"""Data sets: what they hold, what is refused, and the downloader on local sources."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import importlib
import threading
import zipfile
from collections import Counter
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from autorec.data import datasets
from autorec.data.datasets import Archive, Dataset, File, checked, complete, fetch, load
from autorec.data.datasets import movielens_1m as ml_1m
from autorec.data.datasets import movielens_100k as ml_100k
from autorec.errors import ConfigError, DataError

EXPECTED = {  # name: (rows of train, valid, test), positives or sum of the label in train
    "avazu": ((9_999, None, None), 1_706),
    "criteo-kaggle": ((10_000, None, None), 2_182),
    "frappe": ((202_027, 57_722, 28_860), 67_604),
    "movielens-100k": ((100_000, None, None), 352_986),
    "movielens-1m": ((1_000_209, None, None), 3_582_313),
}


def rows(table):
    return None if table is None else table.num_rows


@pytest.mark.parametrize("name", datasets.names())
def test_rows_label_and_roles(data_root, name):
    found = load(name, data_root)
    sizes, total = EXPECTED[name]
    assert found.name == name
    assert (rows(found.train), rows(found.valid), rows(found.test)) == sizes
    assert sum(found.train[found.label].to_pylist()) == total
    columns = set(found.train.column_names)
    roles = {found.label, found.user_id, found.item_id, found.timestamp} - {None}
    assert roles <= columns
    assert set(found.feature_types) <= columns - {found.label}
    for table in (found.valid, found.test):
        assert table is None or table.schema.equals(found.train.schema)
    assert found.note
    if found.timestamp:
        assert pa.types.is_timestamp(found.train.schema.field(found.timestamp).type)


def test_every_data_set_states_what_it_should_hold():
    assert set(datasets.names()) == set(EXPECTED)


def test_frappe_says_that_its_training_negatives_are_not_the_original(data_root):
    found = load("frappe", data_root)
    assert "training negatives are drawn anew" in found.note
    assert found.train.column_names[:3] == ["label", "user", "item"]
    assert set(found.feature_types.values()) == {"categorical"}


def test_movielens_100k_joins_users_and_items(data_root):
    found = load("movielens-100k", data_root)
    first = found.train.slice(0, 1).to_pylist()[0]
    stamp = first.pop("timestamp")
    assert (stamp - type(stamp)(1970, 1, 1)).total_seconds() == 881_250_949
    assert first == {
        "user": 196,
        "item": 242,
        "rating": 3,
        "age": 49,
        "gender": "M",
        "occupation": "writer",
        "zip3": "551",
        "year": 1997,
        "genres": ["Comedy"],
    }
    stars = Counter(found.train["rating"].to_pylist())
    assert [stars[i] for i in range(1, 6)] == [6110, 11370, 27145, 34174, 21201]
    assert found.train["year"].null_count == 9
    assert found.train["user"].null_count == found.train["age"].null_count == 0


def test_movielens_100k_official_folds_part_the_ratings(data_root):
    whole = load("movielens-100k", data_root).train
    keys = set(zip(whole["user"].to_pylist(), whole["item"].to_pylist(), strict=True))
    for fold in ("u1", "u5"):
        found = load("movielens-100k", data_root, fold=fold)
        assert (found.train.num_rows, found.test.num_rows) == (80_000, 20_000)
        sides = [
            set(zip(side["user"].to_pylist(), side["item"].to_pylist(), strict=True))
            for side in (found.train, found.test)
        ]
        assert sides[0] | sides[1] == keys
        assert not sides[0] & sides[1]
    with pytest.raises(ConfigError, match=r"None or one of \['u1', .*\], but got 'ua'"):
        load("movielens-100k", data_root, fold="ua")


def test_movielens_as_ctr_likes_four_stars_and_more(data_root):
    rated = load("movielens-100k", data_root).train
    found = load("movielens-100k", data_root, as_ctr=True)
    assert (found.label, found.task) == ("liked", "ctr")
    assert "rating" not in found.train.column_names
    expected = [int(rating >= 4) for rating in rated["rating"].to_pylist()]
    assert found.train["liked"].to_pylist() == expected


def test_movielens_1m_takes_the_approximate_time_and_nothing_else(data_root):
    found = load("movielens-1m", data_root, as_ctr=True)
    assert found.train.column_names == [
        "user",
        "item",
        "liked",
        "timestamp",
        "gender",
        "age",
        "occupation",
        "zip3",
        "year",
        "genres",
    ]
    assert "interpolated" in found.note
    last = {row["item"]: row for row in found.train.slice(0, 3000).to_pylist()}[1]
    assert (last["year"], last["genres"]) == (1995, ["Animation", "Children's", "Comedy"])
    assert all(column.null_count == 0 for column in found.train.columns)
    user = found.train["user"].to_numpy()
    time = found.train["timestamp"].cast("int64").to_numpy()
    assert (np.diff(time)[np.diff(user) == 0] >= 0).all()


def test_movielens_1m_reads_the_publishers_layout_first(tmp_path, monkeypatch):
    texts = {
        "ratings.dat": "2::10::5::978300019\n1::20::2::978300055\n",
        "users.dat": "1::F::1::10::48067\n2::M::56::16::70072-1\n",
        "movies.dat": "10::Caf\xe9 au lait (II) (1995)::Drama|Comedy\n20::1984 (1956)::Sci-Fi\n",
    }
    (tmp_path / "ml-1m").mkdir()
    files = {}
    for name, text in texts.items():
        data = text.encode("latin-1")
        (tmp_path / "ml-1m" / name).write_bytes(data)
        files[name] = File(f"ml-1m/{name}", hashlib.sha256(data).hexdigest(), len(data))
    monkeypatch.setattr(ml_1m, "RATINGS", files["ratings.dat"])
    monkeypatch.setattr(ml_1m, "USERS", files["users.dat"])
    monkeypatch.setattr(ml_1m, "MOVIES", files["movies.dat"])
    monkeypatch.setattr(ml_1m, "LAYOUTS", (tuple(files.values()),))
    table = load("movielens-1m", tmp_path).train
    assert table["user"].to_pylist() == [2, 1]
    assert table["zip3"].to_pylist() == ["700", "480"]
    assert table["year"].to_pylist() == [1995, 1956]
    assert table["genres"].to_pylist() == [["Drama", "Comedy"], ["Sci-Fi"]]
    assert table["timestamp"].cast("int64").to_pylist() == [978300019, 978300055]


def test_criteo_keeps_nulls_and_types(data_root):
    table = load("criteo_kaggle", data_root).train
    numbers, words = [f"I{i}" for i in range(1, 14)], [f"C{i}" for i in range(1, 27)]
    assert table.column_names == ["label", *numbers, *words]
    assert table["I12"].null_count == 7735
    assert table["C22"].null_count == 8182
    assert "" not in set(table["C22"].to_pylist())
    assert str(table.schema.field("C1").type) == "string"
    assert str(table.schema.field("I13").type) == "int64"


def test_avazu_parses_the_hour_and_drops_the_row_identifier(data_root):
    found = load("avazu", data_root)
    assert "id" not in found.train.column_names
    assert {str(hour) for hour in found.train["hour"].to_pylist()} == {"2014-10-21 00:00:00"}
    assert found.timestamp is None  # one hour orders nothing
    assert len(found.train.column_names) == 23


def toy(task="ctr", timestamp="t", test=None):
    table = pa.table({"t": [5, 1, 2, 2, 9, 9, 9, 3, 4, 0], "y": [0, 1] * 5})
    return Dataset("toy", table, None, test, "y", None, None, timestamp, task)


def test_split_by_time_keeps_one_moment_together():
    for share, expected in ((0.01, [9, 9, 9]), (0.34, [9, 9, 9]), (0.36, [5, 9, 9, 9])):
        found = toy().split(share)
        assert sorted(found.test["t"].to_pylist()) == expected
        assert found.train.num_rows == 10 - len(expected)
        assert max(found.train["t"].to_pylist()) < min(expected)


def test_split_at_random_follows_the_seed():
    one, again, other = (toy().split(0.3, method="random", seed=s).test for s in (1, 1, 2))
    assert one.num_rows == 3
    assert one.equals(again)
    assert not one.equals(other)
    assert toy(timestamp=None).split(0.3, seed=1).test.equals(one)


def test_split_refuses_what_it_cannot_do():
    with pytest.raises(ConfigError, match=r"between 0 and 1, but got 1\.5"):
        toy().split(1.5)
    with pytest.raises(ConfigError, match="but got 'user' and timestamp='t'"):
        toy().split(method="user")
    with pytest.raises(ConfigError, match="but got 'time' and timestamp=None"):
        toy(timestamp=None).split(method="time")
    with pytest.raises(DataError, match="toy has an official test set"):
        toy(test=pa.table({"y": [1]})).split()
    with pytest.raises(DataError, match=r"a share of 0\.01 of 10 rows by random leaves one side"):
        toy().split(0.01, method="random")
    moment = dataclasses.replace(toy(), train=pa.table({"t": [3, 3], "y": [0, 1]}))
    with pytest.raises(DataError, match=r"a share of 0\.2 of 2 rows by time leaves one side"):
        moment.split()


def test_an_altered_file_is_refused(tmp_path):
    digest = hashlib.sha256(b"1,2\n").hexdigest()
    file = File("x/a.csv", digest, 4)
    with pytest.raises(DataError, match=r"x/a\.csv must be under .* but it is not there"):
        checked(tmp_path, file)
    (tmp_path / "x").mkdir()
    path = tmp_path / "x" / "a.csv"
    path.write_bytes(b"1,2\n")
    assert checked(tmp_path, file) == path
    assert checked(tmp_path, File("x/a.csv", hashlib.md5(b"1,2\n").hexdigest())) == path
    path.write_bytes(b"1,2,3\n")
    with pytest.raises(DataError, match=r"x/a\.csv must have 4 bytes, but has 6"):
        checked(tmp_path, file)
    path.write_bytes(b"1,3\n")
    with pytest.raises(DataError, match=f"must have the sha256 {digest}, but has"):
        checked(tmp_path, file)


def test_the_first_complete_layout_wins(tmp_path):
    a, b, c = (File(name, "0" * 64) for name in "abc")
    (tmp_path / "b").touch()
    (tmp_path / "c").touch()
    assert complete(tmp_path, [(a, b), (b, c), (c,)]) == (b, c)
    assert complete(tmp_path, [(a, b)]) is None


@pytest.fixture
def no_folders(tmp_path, monkeypatch):
    """No AUTOREC_DATA, and an empty cache."""
    monkeypatch.delenv("AUTOREC_DATA", raising=False)
    monkeypatch.setenv("AUTOREC_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", ["frappe", "criteo-kaggle", "avazu"])
def test_what_may_not_be_downloaded_says_where_to_get_it(no_folders, name):
    folder = name.split("-")[0]
    message = (
        rf"data set '{name}' needs {folder}/.* under .*cache; the files? (is|are) the .*; then"
    )
    with pytest.raises(DataError, match=message + " set AUTOREC_DATA"):
        load(name)


@pytest.mark.parametrize("name", datasets.names())
def test_a_file_called_directly_says_what_is_missing(tmp_path, name):
    module = importlib.import_module(f"autorec.data.datasets.{name.replace('-', '_')}")
    with pytest.raises(DataError, match=r"must be under .* it is not there|no complete layout of"):
        module.load(tmp_path)


def test_an_explicit_root_is_never_filled(tmp_path):
    with pytest.raises(DataError, match=r"needs ml-100k/u\.data, ml-100k/u\.item"):
        load("movielens-100k", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_suggest_near_ones():
    with pytest.raises(ConfigError, match="no part named 'movielens_100'; did you mean"):
        load("movielens-100")


FILES = (File("toy/a.txt", hashlib.sha256(b"alpha").hexdigest(), 5),)


@pytest.fixture
def archive(tmp_path):
    """A zip with one wanted file, one nobody asked for, and an escape from its folder."""
    path = tmp_path / "published" / "toy.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("toy/a.txt", "alpha")
        members.writestr("toy/unwanted.txt", "x")
        members.writestr("../escape.txt", "x")
    return Archive(path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest())


def files_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_fetch_lays_out_the_named_files_only(tmp_path, archive):
    fetch(archive, [FILES], tmp_path / "cache")
    assert files_under(tmp_path / "cache") == ["toy/a.txt"]
    assert (tmp_path / "cache" / "toy" / "a.txt").read_text() == "alpha"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_fetch_over_http(tmp_path, archive):
    handler = partial(Quiet, directory=str(tmp_path / "published"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        try:
            fetch(Archive(f"{base}/toy.zip", archive.sha256), [FILES], tmp_path / "cache")
            with pytest.raises(DataError, match=r"missing\.zip could not be downloaded: .*404"):
                fetch(Archive(f"{base}/missing.zip", "0" * 64), [FILES], tmp_path / "other")
        finally:
            server.shutdown()
            thread.join()
    assert files_under(tmp_path / "cache") == ["toy/a.txt"]
    assert files_under(tmp_path / "other") == []


def test_a_wrong_checksum_leaves_nothing_behind(tmp_path, archive):
    wrong = dataclasses.replace(archive, sha256="1" * 64)
    with pytest.raises(DataError, match=f"must have the sha256 {'1' * 64}, but has"):
        fetch(wrong, [FILES], tmp_path / "cache")
    altered = (dataclasses.replace(FILES[0], digest="2" * 64),)
    with pytest.raises(DataError, match=r"toy/a\.txt must have the sha256 222"):
        fetch(archive, [altered], tmp_path / "cache")
    assert files_under(tmp_path / "cache") == []


def test_an_archive_without_the_files_is_refused(tmp_path, archive):
    with pytest.raises(DataError, match=r"holds no complete layout, only .*toy/a\.txt"):
        fetch(archive, [(*FILES, File("toy/b.txt", "0" * 64))], tmp_path / "cache")


def test_load_downloads_into_the_cache_and_then_reads_it(data_root, no_folders, monkeypatch):
    source = no_folders / "ml-100k.zip"
    with zipfile.ZipFile(source, "w") as members:
        for file in ml_100k.FILES:
            members.write(data_root / file.path, file.path)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setattr(ml_100k, "ARCHIVE", Archive(source.as_uri(), digest))
    assert load("movielens-100k", fold="u2").test.num_rows == 20_000
    source.unlink()
    assert load("movielens-100k").train.num_rows == 100_000
    monkeypatch.setenv("AUTOREC_CACHE", str(no_folders / "empty"))
    with pytest.raises(DataError, match=r"could not be downloaded: .*set AUTOREC_DATA"):
        load("movielens-100k")
    monkeypatch.setenv("AUTOREC_DATA", str(data_root))
    assert load("movielens-100k").train.num_rows == 100_000
