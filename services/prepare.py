"""Makes what a fleet of containers starts from, once: data, student, run folder, and the password of its Redis.

`python -m services.prepare --run-dir R`; each time after the first it only checks, and takes changed settings up.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from gptrec_rl.cli.options import FOLDER
from gptrec_rl.cli.service import shown_errors
from gptrec_rl.runs.prepare import DATA, MINUTES, prepare, write_secrets
from gptrec_rl.stops import exit_code_of, signals_raise


@click.command(context_settings={"auto_envvar_prefix": "GPTREC"})
@click.option("--run-dir", type=FOLDER, required=True, help="Gets data, student and the run folder `tuned`.")
@click.option("--secrets-dir", type=FOLDER, required=True, help="Gets the password and the ACL file of Redis.")
@click.option("--log", type=click.Path(path_type=Path), help="Log of interactions, or a data file.")
@click.option("--log-name", help="What the user calls it; left out: built-in data.")
@click.option("--pretrain-minutes", default=1.0, show_default=True, help="Time for stage 1.")
@click.option("--pretrain-settings", multiple=True, help="Any setting of `gptrec-rl pretrain`.")
@click.option("--goal", default="ndcg=1,ild=1", show_default=True, help="As in `gptrec-rl tune`.")
@click.option("--max-minutes", type=float, help=f"Time for stage 2; {MINUTES:g} where --steps isn't given either.")
@click.option("--steps", type=int, help="Steps of stage 2.")
@click.option("--settings", multiple=True, help="Any setting of `gptrec-rl tune`.")
def main(
    run_dir: Path,
    secrets_dir: Path,
    log: Path | None,
    log_name: str | None,
    pretrain_minutes: float,
    pretrain_settings: tuple[str, ...],
    goal: str,
    max_minutes: float | None,
    steps: int | None,
    settings: tuple[str, ...],
) -> None:
    """Prepare a run, or check that what is prepared is what was asked for."""
    is_begun = (run_dir / DATA).exists()
    remedy = "\nFor a run from the beginning, give RUN another name" if is_begun else ""
    try:
        with shown_errors(remedy, "%(message)s"), signals_raise():
            run = prepare(
                run_dir,
                log=log,
                log_name=log_name,
                goal=goal,
                max_minutes=max_minutes,
                steps=steps,
                settings=settings,
                pretrain_minutes=pretrain_minutes,
                pretrain_settings=pretrain_settings,
            )
    except KeyboardInterrupt as error:
        sys.exit(exit_code_of(error))
    write_secrets(secrets_dir, run.config.run_id)
    logging.getLogger(__name__).info("%s is ready, for %s", run.folder, run.config.goal)


if __name__ == "__main__":
    main()
