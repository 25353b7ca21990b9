"""`gptrec-rl tune`: stage 2, a fleet of processes (or one process) aligns a student with a goal by PPO."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from gptrec_rl.cli.options import (
    FOLDER,
    SEED,
    config_options,
    on_existing_option,
    report_option,
    settings_of,
    threads_option,
    use_threads,
)
from gptrec_rl.cli.redis_option import redis_options
from gptrec_rl.errors import StorageError
from gptrec_rl.stops import handled_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gptrec_rl.config import TuneConfig
    from gptrec_rl.config_files import Change
    from gptrec_rl.runs.run_folder import Run
    from gptrec_rl.telemetry.history import RunHistory
    from gptrec_rl.telemetry.stream import MetricRecord

NO_BETTER = "No policy was better than the student that tuning started from: the best one is the student."


@click.command()
@click.option("--data", envvar="GPTREC_DATA", type=click.Path(path_type=Path), help="Data file; a resumed run has one.")
@click.option("--student", type=click.Path(path_type=Path), help="Policy to start from, e.g. the folder of 'pretrain'.")
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Gets checkpoints, logs and metrics.")
@click.option("--goal", help="Weighted rewards, e.g. ndcg=1,ild=0.5 or ndcg=1,my_package.rewards:novelty=0.3.")
@click.option("--reward-model", type=FOLDER, help="Trained model that the reward expected_ndcg asks, e.g. a SASRec.")
@click.option("--sweep", help="One run for each weight of a reward in the goal, e.g. ild=0,0.2,1,3; draws the front.")
@click.option("--max-minutes", type=float, help="Time budget of a run.")
@click.option("--steps", type=int, help="Step budget of a run.")
@click.option("--generators", type=int, help="Generator processes; more than fit leave the optimiser a core less.")
@click.option("--paper", is_flag=True, help="The paper's settings instead of those for minutes on two cores.")
@click.option("--serial", is_flag=True, help="All in this process, without Redis; with --seed the same each time.")
@redis_options(required=False, help="Left out: an embedded Redis is started.")
@threads_option
@click.option("--seed", type=SEED, help="Of all random streams.")
@click.option("--record", is_flag=True, help="Keep what the optimiser draws in the run folder, for --replay.")
@click.option("--replay", "recorded", type=FOLDER, help="Repeat the learner's part of a recorded run, bit for bit.")
@config_options
@on_existing_option
@report_option
def tune(
    data: Path | None,
    student: Path | None,
    run_dir: Path,
    goal: str | None,
    reward_model: Path | None,
    sweep: str | None,
    max_minutes: float | None,
    steps: int | None,
    generators: int | None,
    paper: bool,
    serial: bool,
    redis_url: str | None,
    threads: int | None,
    seed: int | None,
    record: bool,
    recorded: Path | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    on_existing: str,
    report: Path | None,
) -> None:
    """Stage 2: align a student with a goal on whole lists.

    Starts an optimiser, a validator and generators, watches over them, and ends with the best policy by the
    validation users' mean reward. Ctrl-C stops all of it; '--on-existing resume' goes on.
    """
    from gptrec_rl.goals import parse_goal, parse_sweep

    options = {
        "data": data.resolve() if data else None,
        "goal": goal,
        "reward_model": reward_model.resolve() if reward_model else None,
        "max_minutes": max_minutes,
        "steps": steps,
        "seed": seed,
        "fleet.n_generators": generators,
        "fleet.record": record or None,
    }
    if threads is not None and not serial:
        raise click.UsageError("--threads is of --serial; processes share the cores, the more --generators the finer")
    use_threads(threads)
    if recorded is not None:
        _require_only_replay(click.get_current_context())
        _replay(recorded, run_dir, data.resolve() if data else None, on_existing, report)
        return
    changes: list[Change] = [*settings_of(options), *overrides]
    if sweep is None:
        config = _configuration(run_dir, on_existing, paper, config_file, changes)
        run_fleet(run_dir, config, student, on_existing, serial, redis_url, report)
        return
    runs = {}
    for each in parse_sweep(sweep, parse_goal(_swept_goal(run_dir, on_existing, config_file, changes))):
        folder = run_dir / str(each).replace(":", "_")
        config = _configuration(folder, on_existing, paper, config_file, [*changes, {"goal": str(each)}])
        runs[str(each)] = run_fleet(folder, config, student, on_existing, serial, redis_url, report)
    _draw_front(runs, run_dir)


def _configuration(
    run_dir: Path, on_existing: str, paper: bool, file: Path | None, changes: Sequence[Change]
) -> TuneConfig:
    """Read the configuration: changes win over the file, which wins over a resumed run's own or the preset."""
    from gptrec_rl.config import PAPER, TuneConfig
    from gptrec_rl.config_files import read_config
    from gptrec_rl.runs.run_folder import stored_settings

    stored = stored_settings(run_dir) if on_existing == "resume" else {}
    return read_config(TuneConfig, file, changes, stored or (PAPER if paper else {}))


def _swept_goal(run_dir: Path, on_existing: str, file: Path | None, changes: Sequence[Change]) -> str:
    """Return the goal of which a sweep varies one weight: a given one, that of the runs it resumes, or NDCG alone."""
    from gptrec_rl.config import TuneConfig
    from gptrec_rl.config_files import read_config
    from gptrec_rl.runs.run_folder import CONFIG, stored_settings

    earlier = sorted(run_dir.glob(f"*/{CONFIG}")) if on_existing == "resume" else []
    goal = stored_settings(earlier[0].parent)["goal"] if earlier else "ndcg=1"
    return read_config(TuneConfig, file, changes, {"goal": goal}).goal


def _require_only_replay(context: click.Context) -> None:
    """Refuse settings beside `--replay`: a run is repeated with its own."""
    own = {"recorded", "run_dir", "data", "on_existing", "report"}
    for parameter in context.command.params:
        is_given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if is_given and parameter.name not in own:
            raise click.UsageError(
                f"--replay repeats a run with its own settings, student and seed; leave out {parameter.opts[0]}"
            )


def _replay(recorded: Path, run_dir: Path, data: Path | None, on_existing: str, report: Path | None) -> None:
    from gptrec_rl.fleet.recording import Recording
    from gptrec_rl.runs.replay import config_of_replay, replay
    from gptrec_rl.runs.run_folder import prepare_run, sole_user
    from gptrec_rl.store.trained_models import STUDENT
    from gptrec_rl.telemetry.ending import end_recorded

    if on_existing == "resume":
        raise click.UsageError("a replay begins at the first step; give --on-existing overwrite, or another --run-dir")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    recording = Recording.open(recorded)
    with sole_user(run_dir):
        config = config_of_replay(recording, data)
        run = prepare_run(run_dir, config, recorded / STUDENT, on_existing, recorded)  # type: ignore[arg-type]
        with end_recorded(run_dir):
            with _progress(run) as show:
                n_same = replay(recording, run, _kept(run, show))
            click.echo(
                f"Replayed {recording.steps:,} steps of {recorded}: {n_same} published policies, all the same bits."
            )
            _finish(run, report)


def run_fleet(
    run_dir: Path,
    config: TuneConfig,
    student: Path | None,
    on_existing: str,
    serial: bool = False,
    redis_url: str | None = None,
    report: Path | None = None,
) -> Path:
    """Run stage 2 with a progress bar, draw the validator's path, and return the run folder."""
    from gptrec_rl.runs.run_folder import sole_user

    if config.steps is None and config.max_minutes is None:
        raise click.UsageError("say how long to tune: --max-minutes or --steps")
    if not config.data:
        raise click.UsageError("say which data to tune on: --data, or GPTREC_DATA")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not serial:
        _require_room_for_fleet(config, redis_url)
    with sole_user(run_dir):
        return _run_fleet(run_dir, config, student, on_existing, serial, redis_url, report)


def _require_room_for_fleet(config: TuneConfig, redis_url: str | None) -> None:
    """Find out what can't work, or will be slow, before a run folder is replaced and processes start."""
    import psutil
    import torch

    from gptrec_rl.fleet.cores import require_few_enough
    from gptrec_rl.models.precision import product_dtype
    from gptrec_rl.transport.connection import connect

    require_few_enough(config.fleet.n_generators, len(psutil.Process().cpu_affinity()))
    product_dtype(config.precision, torch.device("cpu"))  # warns here what generators would say in their logs alone
    if redis_url is not None:
        connect(redis_url).close()


def _run_fleet(
    run_dir: Path,
    config: TuneConfig,
    student: Path | None,
    on_existing: str,
    serial: bool,
    redis_url: str | None,
    report: Path | None,
) -> Path:
    from gptrec_rl.runs.run_folder import prepare_run
    from gptrec_rl.telemetry.ending import end_recorded

    run = prepare_run(run_dir, config, student, on_existing)  # type: ignore[arg-type]
    with end_recorded(run_dir):
        with _progress(run) as show:
            code = _run_serial(run, show) if serial else _run_processes(run, redis_url, show)
        if code:
            again = f"gptrec-rl tune --run-dir {run_dir} --on-existing resume{' --serial' if serial else ''}"
            click.echo(f"The run is saved; go on with: {again}", err=True)
            raise click.exceptions.Exit(code)
        _finish(run, report)
    return run_dir


@contextmanager
def _progress(run: Run) -> Iterator[Callable[[MetricRecord], None]]:
    """Show a bar, with the latest of each process that is handed to its viewer."""
    from gptrec_rl.reporting.progress import ProgressBar
    from gptrec_rl.telemetry import names

    bar = ProgressBar(f"tuning {run.config.goal}")
    latest: dict[str, float] = {}

    def show(record: MetricRecord) -> None:
        latest.update(record.values)
        if record.role == "optimiser":
            latest["step"] = record.step
        parts = [f"step {latest.get('step', 0):,.0f}"]
        parts += [f"reward {latest[names.REWARD_MEAN]:.3f}"] if names.REWARD_MEAN in latest else []
        parts += [f"validation {latest[names.VAL_REWARD]:.4f}"] if names.VAL_REWARD in latest else []
        bar.show(latest.get(names.PROGRESS, 0.0), ", ".join(parts))

    try:
        yield show
    finally:
        bar.close()


def _kept(run: Run, show: Callable[[MetricRecord], None]) -> Callable[[MetricRecord], None]:
    """Make a viewer that writes each record into the run folder, too."""
    from gptrec_rl.telemetry.records import RunRecords

    records = RunRecords(run.folder)

    def keep(record: MetricRecord) -> None:
        try:
            records.append([record], records.cursor)
        except OSError as error:
            raise StorageError(f"records of {run.folder} can't be written: {error}; free some space") from None
        show(record)

    return keep


def _run_serial(run: Run, show: Callable[[MetricRecord], None]) -> int:
    from gptrec_rl.fleet.recorder import Recorder
    from gptrec_rl.fleet.serial import SerialFleet

    student, signals = run.student(), []
    recorder = Recorder(run.folder, run.config, run.split, student) if run.config.fleet.record else None
    fleet = SerialFleet.of(student, run.split, run.config, run.memory_transport(), recorder)
    with handled_by(lambda number, _: signals.append(number)):
        fleet.run(_kept(run, show), is_stopped=lambda: bool(signals))
    return 128 + signals[0] if signals else 0


def _run_processes(run: Run, redis_url: str | None, show: Callable[[MetricRecord], None]) -> int:
    from torch.cuda import is_available

    from services.supervisor import supervise

    return supervise(run.folder, run.config, redis_url=redis_url, optimiser_on_gpu=is_available(), on_record=show)


def _finish(run: Run, report: Path | None) -> None:
    """Say what came out, draw the validator's path, and write the report's section."""
    from gptrec_rl.telemetry.history import RunHistory
    from gptrec_rl.telemetry.pictures import draw_path, traded_metrics

    history = RunHistory.read(run.folder)
    best = history.best
    if best is None:
        raise click.ClickException(f"no policy of {run.folder} was scored; see {run.folder / 'logs'}")
    accuracy, _ = traded_metrics(best.values)
    click.echo(
        f"Best of {len(history.validations)} validated policies: version {best.version} after {best.step:,} of "
        f"{history.step:,} steps, mean reward {best.reward:.4f}, {accuracy} {best.values[accuracy]:.4f}; {run.folder}"
    )
    try:
        picture = draw_path(run.folder, run.config.goal, history)
        click.echo(f"The validator's path: {picture}")
    except Exception as error:  # of fonts, colours or the disk: the run is what matters
        picture = None
        click.echo(f"The validator's path can't be drawn ({type(error).__name__}: {error})", err=True)
    if history.best_is_the_student:
        click.echo(NO_BETTER)
    if report is not None:
        _report(report, run, history, picture)


def _report(document: Path, run: Run, history: RunHistory, picture: Path | None) -> None:
    """Write what the run took into a document, with its picture beside it."""
    import shutil

    from gptrec_rl.cli.options import typed_command
    from gptrec_rl.reporting.documents import Section, write_section

    beside = document.parent / f"{run.folder.name}-validator-path.png"
    document.parent.mkdir(parents=True, exist_ok=True)
    if picture is not None:
        shutil.copyfile(picture, beside)
    fleet, ppo, best = run.config.fleet, run.config.ppo, history.best
    assert best is not None
    lists = history.step * fleet.n_histories * fleet.n_lists
    notes = [
        f"{history.step:,} steps of {ppo.passes} updates on {fleet.n_histories} x {fleet.n_lists} lists ({lists:,} "
        f"lists drawn); {len(history.validations)} policies validated; the best by mean reward is version "
        f"{best.version}, after {best.step:,} steps.",
        *([NO_BETTER] if history.best_is_the_student else []),
    ]
    section = Section(
        title=f"Stage 2: {run.config.goal} ({run.folder.name})",
        command=typed_command(),
        seconds=history.seconds,
        notes=notes,
        figures=[("The validator's path", beside.name)] if picture is not None else [],
    )
    write_section(document, "Results", section)


def _draw_front(runs: Mapping[str, Path], run_dir: Path) -> None:
    """Draw the sweep's runs and their student in the plane of accuracy and the goal, on the validation users."""
    from gptrec_rl.reporting.figures import trade_off
    from gptrec_rl.reporting.tables import Row, text_table
    from gptrec_rl.telemetry.history import RunHistory
    from gptrec_rl.telemetry.pictures import traded_metrics

    rows: list[Row] = []
    for goal, folder in runs.items():
        history = RunHistory.read(folder)
        first = history.validations[0]
        if not rows and first.step == 0:
            rows.append(Row("student", first.values, first.errors, "student"))
        if history.best is not None:
            rows.append(Row(goal, history.best.values, history.best.errors, "tuned"))
    picture = run_dir / "front.png"
    accuracy, others = traded_metrics(rows[0].values)
    trade_off(rows, picture, across=others, up=accuracy, title="Sweep, validation users")
    click.echo(text_table(rows, (accuracy, *others), with_errors=True))
    click.echo(f"Picture: {picture}")
