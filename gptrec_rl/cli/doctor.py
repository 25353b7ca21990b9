"""`gptrec-rl doctor`: what is wrong with a tuning run or a training, and what to do about it."""

from __future__ import annotations

import time
from pathlib import Path

import click


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.pass_context
def doctor(ctx: click.Context, run_dir: Path) -> None:
    """Say what is wrong with a tuning run or a training, live or dead, one line a finding.

    Looks at nothing but the run folder, and ends with code 0 if all is well, 1 if there are findings.
    """
    from gptrec_rl.telemetry.doctor import Evidence, examine
    from gptrec_rl.telemetry.folders import made_by
    from gptrec_rl.telemetry.training_doctor import TrainingEvidence, examine_training

    if made_by(run_dir) == "tune":
        evidence = Evidence.gather(run_dir, time.time())
        findings, history = examine(evidence), evidence.history
        well = f"{run_dir}: nothing wrong at step {history.step:,}, {history.progress:.0%} done"
    else:
        training = TrainingEvidence.gather(run_dir, time.time())
        findings = examine_training(training)
        well = f"{run_dir}: nothing wrong; {training}"
    for finding in findings:
        click.echo(f"- {finding}")
    if findings:
        ctx.exit(1)
    click.echo(well)
