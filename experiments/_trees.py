"""LightGBM as its users run it: with defaults, and tuned by Optuna until a limit."""

from __future__ import annotations

import os
import time
from typing import Any

# Two threads that spin at barriers are twenty times slower where a third program runs.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import lightgbm as lgb
import numpy as np
import optuna
import pandas as pd

_ROUNDS, _PATIENCE = 2000, 50
Frames = dict[str, pd.DataFrame]


def _train(parts: Frames, settings: dict[str, Any], seed: int, end: float) -> lgb.Booster:
    train, valid = (
        lgb.Dataset(parts[name].drop(columns="label"), parts[name]["label"], free_raw_data=False)
        for name in ("train", "valid")
    )
    fixed = {"objective": "binary", "metric": "auc", "num_threads": 2, "verbose": -1, "seed": seed}

    def late(env: Any) -> None:
        if time.time() > end:
            raise lgb.callback.EarlyStopException(env.iteration, env.evaluation_result_list)

    stop = lgb.early_stopping(_PATIENCE, verbose=False)
    return lgb.train({**fixed, **settings}, train, _ROUNDS, [valid], callbacks=[stop, late])


def _predicted(model: lgb.Booster, parts: Frames) -> np.ndarray:
    return np.asarray(model.predict(parts["test"].drop(columns="label")))


def default_trees(parts: Frames, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Train with default settings and early stopping on `valid`; return test predictions (N,)."""
    model = _train(parts, {}, seed, float("inf"))
    found = {
        "model": f"{model.best_iteration} trees",
        "valid": float(model.best_score["valid_0"]["auc"]),
    }
    return found, _predicted(model, parts)


def tuned_trees(parts: Frames, limit: float, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Search settings by TPE for `limit` seconds, defaults first; return the best by `valid`."""
    end, best = time.time() + limit, [(-1.0, np.empty(0))]

    def objective(trial: optuna.Trial) -> float:
        settings = {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 7, 255, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 5, 200, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.4, 1.0),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
            "bagging_freq": 1,
            "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 100.0, log=True),
            "cat_smooth": trial.suggest_float("cat_smooth", 1.0, 200.0, log=True),
            "cat_l2": trial.suggest_float("cat_l2", 1.0, 200.0, log=True),
        }
        model = _train(parts, settings, seed, end)
        value = float(model.best_score["valid_0"]["auc"])
        if value > best[0][0]:
            best[0] = (value, _predicted(model, parts))
        return value

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True)
    )
    usual = {"learning_rate": 0.1, "num_leaves": 31, "min_data_in_leaf": 20, "lambda_l2": 1e-3}
    usual |= {"feature_fraction": 1.0, "bagging_fraction": 1.0, "cat_smooth": 10.0, "cat_l2": 10.0}
    study.enqueue_trial(usual)
    study.optimize(objective, timeout=limit)
    found = {"model": f"best of {len(study.trials)} trials", "valid": best[0][0]}
    return found, best[0][1]
