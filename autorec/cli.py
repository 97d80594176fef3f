"""The command line. Verbs mirror the methods of AutoRec; heavy imports wait inside them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from autorec import arguments as given
from autorec.errors import AutoRecError

if TYPE_CHECKING:
    from autorec.automl import AutoRec

_NEXT = "autorec leaderboard {0} · autorec rank {0} --user ID · autorec deploy {0} NAME"


class _Group(TyperGroup):
    """Turns errors of AutoRec into one message on stderr and exit code 2, Ctrl-C into 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AutoRecError as error:
            if ctx.params.get("debug"):
                raise
            from autorec.terminal import console

            console(stderr=True).print(f"error: {error}", style="red", markup=False)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; nothing was saved", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[
    str, Argument(metavar="DATA", help="Parquet or CSV file, folder or glob, or dataset:NAME.")
]
RunPath = Annotated[str, Argument(metavar="RUN", help="Run folder, or a saved ranker.")]
Output = Annotated[Path | None, Option("--output", "-o", help="Write here: .csv or .parquet.")]


@app.callback()
def _main(
    debug: Annotated[bool, Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """AutoRec finds, trains, ranks with and deploys a recommender from a click or rating log."""


@app.command()
def fit(
    data: Data,
    *,
    label: Annotated[str | None, Option(help="Column to predict.")] = None,
    user: Annotated[str | None, Option(help="Column of user ids.")] = None,
    item: Annotated[str | None, Option(help="Column of item ids.")] = None,
    timestamp: Annotated[str | None, Option(help="Column that orders rows in time.")] = None,
    group: Annotated[str | None, Option(help="Column that grouped metrics average over.")] = None,
    weight: Annotated[str | None, Option(help="Column of row weights.")] = None,
    types: Annotated[list[str] | None, Option("--type", metavar="COL=KIND")] = None,
    task: Annotated[str, Option(help="auto, ctr or rating.")] = "auto",
    tuning: Annotated[str | None, Option(help="Validation rows of your own.")] = None,
    time_limit: Annotated[str, Option(help="600, 90s, 10m or 1h; all work included.")] = "10m",
    n_trials: Annotated[int | None, Option(help="Most trials, baselines included.")] = None,
    search: Annotated[str, Option(help="tpe, evolution, bayesian, morphism or random.")] = "tpe",
    start: Annotated[list[str] | None, Option(help="Try DCNv2, FinalNet ... first.")] = None,
    features: Annotated[int, Option(help="Most derived statistics of crosses; 0: off.")] = 24,
    split: Annotated[str, Option(help="auto, time, user or random.")] = "auto",
    metric: Annotated[str | None, Option(help="What the search optimises.")] = None,
    workers: Annotated[str, Option(help="Processes; auto: one per core.")] = "auto",
    seed: Annotated[int, Option(help="Of split, search and training.")] = 0,
    path: Annotated[Path | None, Option(help="Run folder; a new one by default.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with the search in --path.")] = False,
    no_refit: Annotated[bool, Option("--no-refit", help="Keep the weights of the search.")] = False,
    no_mlflow: Annotated[bool, Option("--no-mlflow", help="Keep no MLflow store.")] = False,
    verbose: Annotated[bool, Option("-v", help="Also log what libraries say.")] = False,
    quiet: Annotated[int, Option("-q", count=True, help="Say less; -qq: nothing.")] = 0,
) -> None:
    """Search, train and keep the best recommender for a table."""
    roles = {"label": label, "user_id": user, "item_id": item, "timestamp": timestamp}
    roles |= {"group": group, "sample_weight": weight, "eval_metric": metric}
    rows = given.training(data, tuning, roles, task, given.pairs(types, "--type"))
    given.log_more(verbose)
    from autorec import AutoRec

    ar = AutoRec(**rows.columns, path=path, seed=seed, verbosity=max(0, 2 - quiet))
    how: dict[str, Any] = {"time_limit": given.duration(time_limit), "n_trials": n_trials}
    how |= {"num_workers": given.workers(workers), "refit": not no_refit, "mlflow": not no_mlflow}
    how |= {"search": search, "starts": start, "split": split, "features": features}
    ar.fit(rows.train, tuning_data=rows.valid, resume=resume, **how)
    _after_fit(ar, quiet)


def _after_fit(ar: AutoRec, quiet: int) -> None:
    report = ar.path_ / "report.html" if (ar.path_ / "report.html").is_file() else ar.report()
    if quiet >= 2:
        return
    from autorec.terminal import board, console, records

    console().print(board(records(ar.leaderboard()), most=12))
    typer.echo(f"report {report}\nnext   {_NEXT.format(shlex.quote(str(ar.path_)))}")


@app.command()
def predict(run: RunPath, data: Data, *, model: str | None = None, output: Output = None) -> None:
    """Score rows, in their order: P(positive) or a rating each."""
    from autorec.data.frames import to_table

    ar = _load(run)
    table = to_table(given.labelled(data))
    ids = [n for n in (ar.schema_.user, ar.schema_.item) if n and n in table.column_names]
    scores = (ar.predict_proba if ar.task_ == "ctr" else ar.predict)(table, model=model)
    found = table.select(ids).to_pandas()
    found["probability" if ar.task_ == "ctr" else "rating"] = scores
    given.write(found, output)


@app.command()
def rank(
    run: RunPath,
    *,
    user: Annotated[list[str], Option("--user", "-u", help="User id; repeatable.")],
    k: Annotated[int, Option("-k", help="Items for each user.")] = 10,
    context: Annotated[list[str] | None, Option(metavar="COL=VALUE")] = None,
    seen: Annotated[bool, Option("--seen", help="Also items that the user has met.")] = False,
    model: str | None = None,
    output: Output = None,
) -> None:
    """Print the k best items of each user."""
    ar = _load(run)
    users = [given.as_id(ar.schema_, word) for word in user]
    values = given.pairs(context, "--context") or None
    found = ar.rank(users, k=k, filter_seen=not seen, context=values, model=model)
    if output:
        given.write(found, output)
        return
    from autorec.terminal import console, grid, records

    console().print(grid(records(found)))


@app.command()
def evaluate(run: RunPath, data: Data, *, model: str | None = None) -> None:
    """Print every metric on labelled rows, with an interval."""
    from autorec.terminal import console, plain_table

    ar = _load(run)
    found = ar.evaluate(given.labelled(data), model=model)
    table = plain_table(show_header=False)
    for name, value in found.items():
        if not name.endswith(("_lo", "_hi")):
            ends = [found.get(f"{name}_{end}") for end in ("lo", "hi")]
            span = "" if None in ends else f"95 % {ends[0]:.4f} to {ends[1]:.4f}"
            table.add_row(name, f"{value:.4f}", span)
    console().print(table)


@app.command()
def leaderboard(
    run: RunPath,
    *,
    data: Annotated[str | None, Option(help="Labelled rows: adds their score.")] = None,
    all_trials: Annotated[bool, Option("--all", help="Also stopped and failed trials.")] = False,
    output: Output = None,
) -> None:
    """Print the trials of a run, best first."""
    ar = _load(run)
    found = ar.leaderboard(None if data is None else given.labelled(data), all_trials=all_trials)
    if output:
        given.write(found, output)
        return
    from autorec.terminal import board, console, records

    console().print(board(records(found)))


@app.command()
def check(
    data: Data,
    *,
    tuning: Annotated[str | None, Option(help="Validation rows.")] = None,
    label: str | None = None,
    user: str | None = None,
    item: str | None = None,
    timestamp: str | None = None,
) -> None:
    """Look for leaks, drift and broken columns; exit code 1 for an error."""
    from autorec import AutoRec
    from autorec.terminal import complaints, console

    roles = {"label": label, "user_id": user, "item_id": item, "timestamp": timestamp}
    rows = given.training(data, tuning, roles)
    findings = AutoRec(**rows.columns).check(rows.train, tuning_data=rows.valid)
    console().print(complaints(findings))
    raise typer.Exit(1 if any(found.severity == "error" for found in findings) else 0)


@app.command()
def deploy(
    run: Annotated[Path, Argument(metavar="RUN", help="Run folder.")],
    name: Annotated[str, Argument(help="Of the registered model.")],
    *,
    alias: Annotated[str, Option(help="Moved to the new version.")] = "champion",
    port: Annotated[int, Option(help="In the printed command.")] = 5001,
) -> None:
    """Register the ranker in MLflow and print how to serve it."""
    from autorec.run import Run
    from autorec.tracking.store import initialise, serve_command

    config = Run.open(run).config
    info = _load(str(run)).deploy(name, alias=alias)
    store = initialise(run, config.tracking_uri)
    typer.echo(f"registered {info.name} version {info.version} as {info.uri}\n\nserve it with\n")
    typer.echo(f"  {shlex.join(serve_command(info.uri, store, port))}\n\nand ask it with\n")
    typer.echo(f"  curl http://127.0.0.1:{port}/invocations -H 'Content-Type: application/json' \\")
    typer.echo("    -d '{\"dataframe_records\": [{...columns of one row...}]}'")


@app.command()
def dashboard(
    run: Annotated[Path, Argument(metavar="RUN", help="Run folder.")],
    *,
    port: Annotated[int, Option(help="Of the first page; 0: any free one.")] = 8080,
) -> None:
    """Show a run in Optuna's dashboard and MLflow's page until Ctrl-C."""
    from autorec.dashboard import commands, serve
    from autorec.terminal import console

    screen, pages = console(), commands(run, port)

    def show() -> None:
        for title, link, _ in pages:
            screen.print(f"{title:18}[bold]{link}[/bold]", soft_wrap=True)
        screen.print("Ctrl-C ends both")

    screen.print("starting, which takes some seconds")
    serve(run, pages, show)


@app.command()
def doctor() -> None:
    """Tell what this machine has and lacks, and how to mend it."""
    from autorec.doctor import FAULT, examine
    from autorec.terminal import console, health

    checks = examine()
    console().print(health(checks))
    raise typer.Exit(1 if any(one.state == FAULT for one in checks) else 0)


@app.command()
def datasets() -> None:
    """List public data sets and where to get them."""
    from autorec.doctor import known_datasets
    from autorec.terminal import console, shelf

    console().print(shelf(known_datasets()))


@app.command()
def demo(
    *,
    path: Annotated[Path, Option(help="Where everything goes.")] = Path("autorec-demo"),
    time_limit: Annotated[str, Option(help="Of the fit.")] = "75s",
    rows: Annotated[int, Option(help="Simulated clicks.")] = 100_000,
    no_serve: Annotated[bool, Option("--no-serve", help="Leave the server out.")] = False,
) -> None:
    """See it all in minutes: simulate, fit, rank, deploy, serve."""
    from autorec.demo import run

    run(path, given.duration(time_limit), rows=rows, serve=not no_serve)


def _load(run: str) -> AutoRec:
    from autorec import AutoRec

    return AutoRec.load(run)


def main() -> None:
    """Run the command line; `--debug` may stand anywhere in it."""
    words = sys.argv[1:]
    if "--debug" in words:
        words = ["--debug", *(word for word in words if word != "--debug")]
    app(words, prog_name="autorec")
