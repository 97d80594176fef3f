"""The board: one row a trial, baselines always on it, ranked only among trials of full fidelity."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from autorec.run import Run

if TYPE_CHECKING:
    from autorec.search.records import TrialRecord

_INTERVALS = 12
_REPLICATES = 200


def rows(
    trials: list[TrialRecord],
    run: Run,
    *,
    all_trials: bool = False,
    tests: dict[int, float] | None = None,
    children: dict[int, str] | None = None,
) -> list[dict[str, Any]]:
    """Return the leaderboard, best first, as one dict a row.

    Scores are higher-is-better; raw metric values stand beside them. Trials that halving stopped,
    and failed ones, have no rank and come last; without `all_trials` they are left out.

    Args:
        trials: the study.
        run: gives validation rows and predictions for the bootstrap intervals of the first 12.
        all_trials: keep stopped and failed trials.
        tests: score on other data by trial number.
        children: MLflow run ids by trial number.
    """
    done = [t for t in trials if t.state == "COMPLETE" and t.value is not None]
    ranked = sorted(done, key=lambda t: -float(t.value or 0.0))
    around = intervals(ranked[:_INTERVALS], run)
    bar = max((float(t.value or 0.0) for t in done if t.baseline), default=None)
    found = []
    for place, trial in enumerate(ranked, start=1):
        row = _row(trial, run, bar)
        low, high = around.get(trial.number, (None, None))
        found.append({"rank": place, **row, "score_val_lo": low, "score_val_hi": high})
    if all_trials:
        rest = [t for t in trials if t.state in ("PRUNED", "FAIL")]
        rest.sort(key=lambda t: -float("-inf" if t.value is None else t.value))
        found += [{"rank": None, **_row(trial, run, bar)} for trial in rest]
    for row in found:
        row["score_test"] = (tests or {}).get(row["trial"])
        row["mlflow_run_id"] = (children or {}).get(row["trial"])
    front = _pareto(found)
    for row in found:
        row["pareto"] = row["trial"] in front
    return [{name: row.get(name) for name in COLUMNS} for row in found]


COLUMNS = (
    "rank",
    "model",
    "family",
    "score_val",
    "score_val_lo",
    "score_val_hi",
    "eval_metric",
    "score_test",
    "delta_vs_baseline",
    "auc",
    "logloss",
    "ne",
    "gauc",
    "ece",
    "rmse",
    "mae",
    "fit_time_s",
    "latency_p50_ms",
    "latency_p99_ms",
    "rows_per_s",
    "params",
    "flops",
    "memory_mb",
    "fidelity",
    "n_rows_train",
    "n_seeds",
    "pareto",
    "status",
    "trial",
    "mlflow_run_id",
)


def _row(trial: TrialRecord, run: Run, bar: float | None) -> dict[str, Any]:
    score = trial.score
    info = score.info if score else {}
    raw: dict[str, Any] = dict(score.metrics) if score else {}
    raw["ne"] = raw.pop("normalized_entropy", None)
    return {
        "model": trial.name,
        "family": trial.candidate.family if trial.candidate else None,
        "score_val": trial.value,
        "eval_metric": run.config.task["eval_metric"],
        "delta_vs_baseline": None if bar is None or trial.value is None else trial.value - bar,
        **raw,
        "fit_time_s": round(score.seconds, 2) if score else None,
        **_latency(trial, run),
        "params": info.get("params"),
        "flops": info.get("flops"),
        "memory_mb": info.get("memory_mb"),
        "fidelity": "full" if trial.state == "COMPLETE" else "partial",
        "n_rows_train": info.get("n_train"),
        "n_seeds": 1,
        "status": trial.status,
        "trial": trial.number,
    }


def intervals(trials: list[TrialRecord], run: Run) -> dict[int, tuple[float | None, float | None]]:
    """Return bootstrap intervals of the scores, over users where the metric is grouped."""
    from autorec.evaluate.intervals import bootstrap

    task = run.task()
    found: dict[int, tuple[float | None, float | None]] = {}
    valid = run.columns("valid")
    sign = 1.0 if task.metric.greater_is_better else -1.0
    for trial in trials:
        prediction = run.prediction(trial.number)
        if prediction is None or len(prediction) != valid.n_rows or valid.label is None:
            continue
        interval = bootstrap(
            task.eval_metric,
            valid.label,
            prediction,
            weight=valid.weight,
            group=valid.group if task.metric.grouped else None,
            replicates=_REPLICATES if valid.n_rows <= 200_000 else 50,
        )
        low, high = sorted((sign * interval.low, sign * interval.high))
        found[trial.number] = (low, high)
    return found


def _latency(trial: TrialRecord, run: Run) -> dict[str, Any]:
    """Return milliseconds for one row and rows a second in bulk, measured once and kept."""
    path = run.trial_folder(trial.number) / "latency.json"
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return known
    if trial.state != "COMPLETE" or not run.has_weights(trial.number):
        return {}
    from autorec.evaluate.latency import latency
    from autorec.trials import load_trial_model

    model, valid = load_trial_model(run, trial), run.columns("valid")
    bulk = min(4096, valid.n_rows)
    pieces = {size: valid.take(np.arange(size)) for size in {1, bulk}}
    times = latency(lambda size: model.predict(pieces[size]), tuple(sorted(pieces)), seconds=0.1)
    found = {
        "latency_p50_ms": round(times[1].p50_ms, 3),
        "latency_p99_ms": round(times[1].p99_ms, 3),
        "rows_per_s": round(times[bulk].rows_per_s),
    }
    path.write_text(json.dumps(found), encoding="utf-8")
    return found


def _pareto(found: list[dict[str, Any]]) -> set[int]:
    """Return trials that no other beats in both score and latency of one row."""
    known = [r for r in found if r["score_val"] is not None and r.get("latency_p50_ms") is not None]
    front = set()
    for row in known:
        beaten = any(
            other["score_val"] >= row["score_val"]
            and other["latency_p50_ms"] <= row["latency_p50_ms"]
            and other["trial"] != row["trial"]
            and (other["score_val"], -other["latency_p50_ms"])
            != (row["score_val"], -row["latency_p50_ms"])
            for other in known
        )
        if not beaten:
            front.add(row["trial"])
    return front
