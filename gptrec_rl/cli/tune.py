"""`gptrec-rl tune`: stage 2, a fleet of processes (or one process) aligns a student with a goal by PPO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    typed_command,
    use_threads,
)
from gptrec_rl.cli.redis_option import redis_options

if TYPE_CHECKING:
    from gptrec_rl.config_files import Change
    from gptrec_rl.runs.run_folder import OnExisting


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
    on_existing: OnExisting,
    report: Path | None,
) -> None:
    """Stage 2: align a student with a goal on whole lists.

    Starts an optimiser, a validator and generators, watches over them, and ends with the best policy by the
    validation users' mean reward. Ctrl-C stops all of it; '--on-existing resume' goes on.
    """
    from gptrec_rl.runs.tune import configuration, replay_run, tune_all
    from gptrec_rl.runs.tune import tune as tune_one

    data = data.resolve() if data else None
    options = {
        "data": data,
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
    if recorded is not None:
        _require_only_replay(click.get_current_context())
        replay_run(recorded, run_dir, data, on_existing=on_existing, report=report, command=typed_command())
        return
    use_threads(threads)
    changes: list[Change] = [*settings_of(options), *overrides]
    how: Any = {"serial": serial, "redis_url": redis_url, "report": report, "command": typed_command()}
    if sweep is not None:
        tune_all(sweep, run_dir, student, paper, config_file, changes, on_existing=on_existing, **how)
        return
    config = configuration(run_dir, on_existing, paper, config_file, changes)
    tune_one(run_dir, config, student, on_existing=on_existing, **how)


def _require_only_replay(context: click.Context) -> None:
    """Refuse settings beside `--replay`: a run is repeated with its own."""
    own = {"recorded", "run_dir", "data", "on_existing", "report"}
    for parameter in context.command.params:
        is_given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if is_given and parameter.name not in own:
            raise click.UsageError(
                f"--replay repeats a run with its own settings, student and seed; leave out {parameter.opts[0]}"
            )
