"""Stage 2: a fleet of processes, or one process, aligns a student with a goal by PPO."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from gptrec_rl.config import PAPER, TuneConfig
from gptrec_rl.config_files import Change, read_config
from gptrec_rl.errors import InputError, StorageError
from gptrec_rl.fleet.cores import require_few_enough
from gptrec_rl.fleet.recorder import Recorder
from gptrec_rl.fleet.recording import Recording
from gptrec_rl.fleet.serial import SerialFleet
from gptrec_rl.fleet.supervisor import supervise
from gptrec_rl.goals import parse_goal, parse_sweep
from gptrec_rl.models.precision import product_dtype
from gptrec_rl.reporting.documents import Section, write_section
from gptrec_rl.reporting.figures import drawn, trade_off
from gptrec_rl.reporting.progress import ProgressBar
from gptrec_rl.reporting.tables import Row, text_table
from gptrec_rl.runs.replay import config_of_replay, replay
from gptrec_rl.runs.run_folder import CONFIG, OnExisting, Run, prepare_run, sole_user, stored_settings
from gptrec_rl.stops import Stopped, stop_wanted
from gptrec_rl.store.trained_models import STUDENT
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.ending import end_recorded
from gptrec_rl.telemetry.history import RunHistory
from gptrec_rl.telemetry.pictures import PATH_PICTURE, draw_path, traded_metrics
from gptrec_rl.telemetry.records import RunRecords
from gptrec_rl.telemetry.stream import MetricRecord
from gptrec_rl.transport.connection import connect

NO_BETTER = "No policy was better than the student that tuning started from: the best one is the student."


def configuration(
    run_dir: Path, on_existing: OnExisting, paper: bool, file: Path | None, changes: Sequence[Change]
) -> TuneConfig:
    """Read the configuration: changes win over the file, which wins over a resumed run's own or the preset."""
    stored = stored_settings(run_dir) if on_existing == "resume" else {}
    return read_config(TuneConfig, file, changes, stored or (PAPER if paper else {}))


def _swept_goal(run_dir: Path, on_existing: OnExisting, file: Path | None, changes: Sequence[Change]) -> str:
    """Return the goal of which a sweep varies one weight: a given one, that of the runs it resumes, or NDCG alone."""
    earlier = sorted(run_dir.glob(f"*/{CONFIG}")) if on_existing == "resume" else []
    goal = stored_settings(earlier[0].parent)["goal"] if earlier else "ndcg=1"
    return read_config(TuneConfig, file, changes, {"goal": goal}).goal


def replay_run(
    recorded: Path,
    run_dir: Path,
    data: Path | None = None,
    *,
    on_existing: OnExisting = "fail",
    report: Path | None = None,
    command: str = "",
) -> Path:
    """Repeat the learner's part of a recorded run, bit for bit, in a new run folder, and return that.

    Args:
        recorded: folder of the run.
        run_dir: the new one.
        data: the data file; None: the one that the run had.
        on_existing: fail or overwrite.
        report: as in `tune`.
        command: as in `tune`.

    Raises:
        InputError: something can't be used, or a policy came out different.
    """
    if on_existing == "resume":
        raise InputError("a replay begins at the first step; give --on-existing overwrite, or another --run-dir")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    recording = Recording.open(recorded)
    with sole_user(run_dir):
        config = config_of_replay(recording, data)
        run = prepare_run(run_dir, config, recorded / STUDENT, on_existing, recorded)
        with end_recorded(run_dir):
            with _progress(run) as show:
                n_same = replay(recording, run, _kept(run, show))
            print(f"Replayed {recording.steps:,} steps of {recorded}: {n_same} published policies, all the same bits.")
            _finish(run, report, command)
    return run_dir


def tune(
    run_dir: Path,
    config: TuneConfig,
    student: Path | None = None,
    *,
    on_existing: OnExisting = "fail",
    serial: bool = False,
    redis_url: str | None = None,
    report: Path | None = None,
    command: str = "",
) -> Path:
    """Run stage 2 with a progress bar, draw the validator's path, and return the run folder.

    Args:
        run_dir: gets checkpoints, logs and metrics.
        config: what to do, with data and a budget.
        student: folder of a policy to start from; a resumed run has its own.
        on_existing: fail, resume or overwrite.
        serial: all in this process, without Redis.
        redis_url: of a fleet of processes; None starts a Redis for it.
        report: Markdown document to write a section into.
        command: what was typed, for the report.

    Raises:
        InputError: something can't be used; or a process of the fleet failed.
        Stopped: a signal, or `gptrec-rl fleet stop`; the run is saved.
    """
    if config.steps is None and config.max_minutes is None:
        raise InputError("say how long to tune: --max-minutes or --steps")
    if not config.data:
        raise InputError("say which data to tune on: --data, or GPTREC_DATA")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not serial:
        _require_room_for_fleet(config, redis_url)
    with sole_user(run_dir):
        run = prepare_run(run_dir, config, student, on_existing)
        with end_recorded(run_dir):
            with _progress(run) as show:
                code = _run_serial(run, show) if serial else _run_processes(run, redis_url, show)
            if code:
                again = f"gptrec-rl tune --run-dir {run_dir} --on-existing resume{' --serial' if serial else ''}"
                print(f"The run is saved; go on with: {again}", file=sys.stderr)
                raise Stopped(code - 128)
            _finish(run, report, command)
    return run_dir


def tune_all(
    sweep: str,
    run_dir: Path,
    student: Path | None,
    paper: bool,
    file: Path | None,
    changes: Sequence[Change],
    *,
    on_existing: OnExisting = "fail",
    **how: Any,
) -> dict[str, Path]:
    """Tune once for each weight of a reward in the goal, and draw the front.

    Args:
        sweep: the reward and its weights, `ild=0,0.2,1,3`.
        run_dir: gets a run folder a weight.
        student: as in `tune`.
        paper: as in `configuration`.
        file: likewise.
        changes: likewise.
        on_existing: as in `tune`.
        how: further arguments of `tune`.

    Returns:
        The run folders by their goals.
    """
    goals = [str(each) for each in parse_sweep(sweep, parse_goal(_swept_goal(run_dir, on_existing, file, changes)))]
    folders = {goal: run_dir / goal.replace(":", "_") for goal in goals}
    configs = {
        goal: configuration(folder, on_existing, paper, file, [*changes, {"goal": goal}])
        for goal, folder in folders.items()
    }
    for goal, folder in folders.items():
        tune(folder, configs[goal], student, on_existing=on_existing, **how)
    _draw_front(folders, run_dir)
    return folders


def _require_room_for_fleet(config: TuneConfig, redis_url: str | None) -> None:
    """Find out what can't work, or will be slow, before a run folder is replaced and processes start."""
    require_few_enough(config.fleet.n_generators, len(psutil.Process().cpu_affinity()))
    product_dtype(config.precision, torch.device("cpu"))  # warns here what generators would say in their logs alone
    if redis_url is not None:
        connect(redis_url).close()


@contextmanager
def _progress(run: Run) -> Iterator[Callable[[MetricRecord], None]]:
    """Show a bar, with the latest of each process that is handed to its viewer."""
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
    records = RunRecords(run.folder)

    def keep(record: MetricRecord) -> None:
        try:
            records.append([record], records.cursor)
        except OSError as error:
            raise StorageError(f"records of {run.folder} can't be written: {error}; free some space") from None
        show(record)

    return keep


def _run_serial(run: Run, show: Callable[[MetricRecord], None]) -> int:
    student = run.student()
    recorder = Recorder(run.folder, run.config, run.split, student) if run.config.fleet.record else None
    fleet = SerialFleet.of(student, run.split, run.config, run.memory_transport(), recorder)
    with stop_wanted() as stop:
        fleet.run(_kept(run, show), is_stopped=lambda: stop.is_wanted)
        return stop.exit_code


def _run_processes(run: Run, redis_url: str | None, show: Callable[[MetricRecord], None]) -> int:
    return supervise(
        run.folder, run.config, redis_url=redis_url, optimiser_on_gpu=torch.cuda.is_available(), on_record=show
    )


def _finish(run: Run, report: Path | None, command: str) -> None:
    """Say what came out, draw the validator's path, and write the report's section."""
    history = RunHistory.read(run.folder)
    best = history.best
    if best is None:
        raise InputError(f"no policy of {run.folder} was scored; see {run.folder / 'logs'}")
    accuracy, _ = traded_metrics(best.values)
    print(
        f"Best of {len(history.validations)} validated policies: version {best.version} after {best.step:,} of "
        f"{history.step:,} steps, mean reward {best.reward:.4f}, {accuracy} {best.values[accuracy]:.4f}; {run.folder}"
    )
    picture: Path | None = run.folder / PATH_PICTURE
    if drawn("The validator's path", lambda: draw_path(run.folder, run.config.goal, history)):
        print(f"The validator's path: {picture}")
    else:
        picture = None
    if history.best_is_the_student:
        print(NO_BETTER)
    if report is not None:
        _report(report, run, history, picture, command)


def _report(document: Path, run: Run, history: RunHistory, picture: Path | None, command: str) -> None:
    """Write what the run took into a document, with its picture beside it."""
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
        command=command,
        seconds=history.seconds,
        notes=notes,
        figures=[("The validator's path", beside.name)] if picture is not None else [],
    )
    write_section(document, "Results", section)


def _draw_front(runs: Mapping[str, Path], run_dir: Path) -> None:
    """Draw the sweep's runs and their student in the plane of accuracy and the goal, on the validation users."""
    rows: list[Row] = []
    for goal, folder in runs.items():
        history = RunHistory.read(folder)
        first = next(iter(history.validations), None)
        if not rows and first is not None and first.step == 0:
            rows.append(Row("student", first.values, first.errors, "student"))
        if history.best is not None:
            rows.append(Row(goal, history.best.values, history.best.errors, "tuned"))
    picture = run_dir / "front.png"
    accuracy, others = traded_metrics(rows[0].values)
    print(text_table(rows, (accuracy, *others), with_errors=True))
    title = "Sweep, validation users"
    if drawn("The front", lambda: trade_off(rows, picture, across=others, up=accuracy, title=title)):
        print(f"Picture: {picture}")
