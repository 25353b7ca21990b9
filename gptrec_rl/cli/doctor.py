"""`gptrec-rl doctor`: what is wrong with a tuning run, and what to do about it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gptrec_rl.cli.options import FOLDER


@click.command()
@click.argument("run_dir", type=FOLDER)
@click.pass_context
def doctor(ctx: click.Context, run_dir: Path) -> None:
    """Say what is wrong with a tuning run, live or dead, one line a finding.

    Looks at nothing but the run folder, and ends with code 0 if all is well, 1 if there are findings.
    """
    from gptrec_rl.reporting.doctor import Evidence, examine

    evidence = Evidence.gather(run_dir, time.time())
    findings = examine(evidence)
    for finding in findings:
        click.echo(f"- {finding}")
    if findings:
        ctx.exit(1)
    click.echo(f"{run_dir}: nothing wrong at step {evidence.history.step:,}, {evidence.history.progress:.0%} done")
