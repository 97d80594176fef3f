"""The front door: a fit and all that can be done with it afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from autorec import AutoRec
from autorec.errors import ConfigError, DataError, NotFittedError, RankerError


def test_board_holds_baselines_and_ranks_by_score(fitted):
    board = fitted.leaderboard()
    assert {"popularity", "linear", "lightgbm"} <= set(board["model"])
    assert board["score_val"].is_monotonic_decreasing
    assert list(board["rank"]) == list(range(1, len(board) + 1))
    inside = board.dropna(subset=["score_val_lo"])
    assert (inside["score_val_lo"] <= inside["score_val"]).all()
    assert (inside["score_val"] <= inside["score_val_hi"]).all()
    assert fitted.best_model_ == board["model"][0]
    assert fitted.n_trials_ == 6
    assert set(fitted.baselines_) == {"popularity", "linear", "lightgbm"}
    assert fitted.failures_ == {}


def test_baseline_delta_is_the_distance_to_the_best_baseline(fitted):
    board = fitted.leaderboard()
    bar = max(fitted.baselines_.values())
    assert np.allclose(board["delta_vs_baseline"], board["score_val"] - bar)


def test_predictions_agree_with_each_other(fitted, log):
    probability = fitted.predict_proba(log)
    assert probability.shape == (len(log),)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert np.array_equal(fitted.predict(log), (probability >= 0.5).astype(int))
    metrics = fitted.evaluate(log)
    from sklearn.metrics import roc_auc_score

    assert metrics["auc"] == pytest.approx(roc_auc_score(log["click"], probability))
    assert metrics["auc_lo"] < metrics["auc"] < metrics["auc_hi"]


def test_any_kept_trial_can_predict(fitted, log):
    by_name = fitted.predict_proba(log, model="popularity")
    assert not np.array_equal(by_name, fitted.predict_proba(log))
    with pytest.raises(ConfigError, match=r"whose weights are kept.*'nothing'"):
        fitted.predict_proba(log, model="nothing")


def test_test_scores_join_the_board(fitted, log):
    board = fitted.leaderboard(log)
    best = board.iloc[0]
    assert best["score_test"] == pytest.approx(
        fitted.evaluate(log, model=int(best["trial"]), ci=False)["auc"]
    )


def test_rank_gives_unseen_items_in_order_of_score(fitted, log):
    user = int(log["user"].iloc[0])
    ranked = fitted.rank(users=[user], k=5)
    assert list(ranked.columns) == ["user_id", "item_id", "score", "rank"]
    assert ranked["score"].is_monotonic_decreasing and list(ranked["rank"]) == [1, 2, 3, 4, 5]
    liked = set(log[(log["user"] == user) & (log["click"] == 1)]["item"])
    assert not liked & set(ranked["item_id"])


def test_loaded_scores_are_the_same_bits_in_a_new_process(fitted, log, tmp_path):
    log.to_parquet(tmp_path / "log.parquet")
    saved = fitted.save(tmp_path / "ranker")
    code = (
        "import sys, numpy as np\nfrom autorec import AutoRec\n"
        "ar = AutoRec.load(sys.argv[1])\n"
        "np.save(sys.argv[3], ar.predict_proba(sys.argv[2]))\n"
    )
    expected = fitted.predict_proba(log)
    for name, folder in (("ranker", saved), ("run", fitted.path_)):
        target = tmp_path / f"{name}.npy"
        arguments = [str(folder), str(tmp_path / "log.parquet"), str(target)]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)
        assert np.load(target).tobytes() == expected.tobytes()


def test_registered_model_gives_the_same_bits(fitted, log, monkeypatch):
    version = fitted.deploy("clicks")
    assert version.name == "clicks" and version.alias == "champion"
    import mlflow

    uri = f"sqlite:///{fitted.path_.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    loaded = AutoRec.load("models:/clicks@champion")
    expected = fitted.predict_proba(log)
    assert loaded.predict_proba(log).tobytes() == expected.tobytes()
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(uri)
        pyfunc = mlflow.pyfunc.load_model("models:/clicks@champion")
    finally:
        mlflow.set_tracking_uri(before)
    got = pyfunc.predict(log)["score"].to_numpy()
    assert got.tobytes() == expected.tobytes()


def test_mlflow_holds_a_parent_and_a_child_per_trial(fitted):
    from autorec.tracking.store import initialise

    store = initialise(fitted.path_)
    runs = store.client().search_runs([store.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert [run.info.run_id for run in parents] == [fitted.mlflow_run_id_]
    assert len(children) == 6
    assert all(c.data.tags["mlflow.parentRunId"] == fitted.mlflow_run_id_ for c in children)
    names = {f.path for f in store.client().list_artifacts(fitted.mlflow_run_id_)}
    assert "report.html" in names
    child = next(c for c in children if c.data.tags.get("mlflow.runName") == "lightgbm")
    files = {f.path for f in store.client().list_artifacts(child.info.run_id)}
    assert "architecture.json" in files
    assert "auc" in child.data.metrics


def test_what_was_decided_is_told(fitted, log):
    assert fitted.task_ == "ctr"
    kinds = {field.name: field.kind.value for field in fitted.schema_.fields}
    assert (kinds["user"], kinds["item"], kinds["tags"]) == ("id", "id", "list")
    assert kinds["price"] == "numeric"
    assert "ts" in fitted.split_
    assert {"read", "encode", "search", "finish"} <= set(fitted.timings_)
    assert fitted.best_architecture_
    assert json.loads((fitted.path_ / "run.json").read_text())["winner"] is not None
    assert fitted.report().read_text().startswith("<!")


def test_nothing_works_before_a_fit():
    ar = AutoRec()
    for call in (lambda: ar.predict([{}]), ar.leaderboard, lambda: ar.best_model_, ar.save):
        with pytest.raises(NotFittedError, match="neither fit nor load was called"):
            call()


def test_a_used_folder_is_not_overwritten(fitted, log):
    ar = AutoRec(label="click", path=fitted.path_)
    with pytest.raises(ConfigError, match="holds files; pass resume=True"):
        ar.fit(log, time_limit=10)


def test_resume_refuses_other_data(fitted, log):
    ar = AutoRec(label="click", path=fitted.path_, verbosity=0)
    with pytest.raises(ConfigError, match="resumed on the data and settings it began with"):
        ar.fit(log.iloc[:2000], time_limit=10, resume=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time_limit": None}, "a fit needs a limit"),
        ({"time_limit": -5}, "time_limit must be above 0, but got -5"),
        ({"n_trials": 0}, "n_trials must be above 0, but got 0"),
        ({"num_workers": 0}, "num_workers must be 'auto' or at least 1, but got 0"),
        ({"search": "tpee"}, "no part named 'tpee'; did you mean 'tpe'"),
        ({"split": "sideways"}, "split must be one of"),
        ({"search_space": "cttr"}, "no part named 'cttr'; did you mean 'ctr'"),
    ],
)
def test_wrong_arguments_are_named(log, tmp_path, arguments, message):
    ar = AutoRec(label="click", path=tmp_path / "run", verbosity=0)
    with pytest.raises(ConfigError, match=message):
        ar.fit(log, **arguments)
    assert not (tmp_path / "run").exists()


def test_loading_nothing_is_a_ranker_error(tmp_path):
    with pytest.raises(RankerError, match="has neither"):
        AutoRec.load(tmp_path)


def test_evaluate_needs_the_label(fitted, log):
    with pytest.raises(DataError, match=r"lacks \['click'\]"):
        fitted.evaluate(log.drop(columns="click"))


def test_rating_fit_end_to_end(log, tmp_path):
    rng = np.random.default_rng(0)
    frame = log.drop(columns=["click", "ts"])
    frame["rating"] = np.clip(3 + (log["user"] % 3) - 1 + rng.normal(0, 0.3, len(log)), 1, 5)
    ar = AutoRec(path=tmp_path / "run", verbosity=0)
    ar.fit(frame, time_limit=60, n_trials=5, mlflow=False)
    assert ar.task_ == "rating"
    prediction = ar.predict(frame)
    assert prediction.min() >= frame["rating"].min() and prediction.max() <= frame["rating"].max()
    assert ar.evaluate(frame)["rmse"] < 0.8 * frame["rating"].std()
    assert ar.best_score_ < 0
    with pytest.raises(ConfigError, match="predict_proba needs task 'ctr'"):
        ar.predict_proba(frame)


def test_import_is_light():
    code = (
        "import sys, time\nstart = time.perf_counter()\nimport autorec\n"
        "took = time.perf_counter() - start\n"
        "heavy = {'mlflow', 'torch_geometric', 'triton', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert took < 1.0, took\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_the_refit_stands_in_a_study_of_its_own(log, tmp_path):
    from autorec.search.records import records
    from autorec.search.study import load_study

    ar = AutoRec(label="click", path=tmp_path / "run", verbosity=0)
    ar.fit(log, time_limit=120, n_trials=3, mlflow=False)
    final = records(load_study(ar.path_, "autorec-final"))
    assert [t.name for t in final] == [f"{ar.best_model_} refit"]
    assert final[0].value == ar.best_score_
    assert ar.n_trials_ == 3, "the search's own study is left as it was"
    searched = ar.predict_proba(log, model=ar.best_model_)
    assert not np.array_equal(searched, ar.predict_proba(log)), (
        "the ranker has the refitted weights"
    )
