"""`make chaos`: random faults against a fleet, one after another, then the invariants; code 1 if one is broken."""

from __future__ import annotations

import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from chaos.faults import FAULTS
from chaos.fleet import HEARTBEAT_S, ROLES, BrokenError, Fleet
from chaos.invariants import violations

LAST_STEPS = 50
LONGEST_FAULT_S = 6.0
LONGEST_REST_S = 4.0


@dataclass(frozen=True)
class Recovery:
    """How a role came back from a fault.

    Attributes:
        role: which.
        fault: one of `FAULTS`.
        steps_s: from the end of its cause until steps advance.
        role_s: until the role has reported, which it does once a heartbeat.
    """

    role: str
    fault: str
    steps_s: float
    role_s: float


@click.command()
@click.option("--faults", "n_faults", default=200, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--seed", default=0, show_default=True, help="Of what befalls whom, and when.")
@click.option("--generators", default=2, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--heartbeat-s", default=HEARTBEAT_S, show_default=True, help="60 of them are enough for a process to start."
)
def main(n_faults: int, seed: int, generators: int, heartbeat_s: float) -> None:
    """Kill, stop, cut off and starve the processes of a fleet, and see that it keeps its promises."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    rng = random.Random(seed)
    imports_s = _seconds_of_imports()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Fleet(Path(folder), generators, heartbeat_s) as fleet:
        kinds = [kind for kind in FAULTS if fleet.has_disks or kind != "full disk"]
        if not fleet.has_disks:
            click.echo("no disk is filled: only root may mount the small ones that this takes")
        started_at = time.time()
        fleet.start()
        try:
            fleet.wait_until_it_works(ROLES, started_at)
            recoveries = [_befall(fleet, rng, kinds, f"{place + 1}/{n_faults}") for place in range(n_faults)]
            fleet.finish(LAST_STEPS)
        except BrokenError as error:
            raise click.ClickException(f"seed {seed}: {error}") from None
        broken = violations(fleet.run_dir, fleet.client, fleet.run_id, is_over=True)
        _show(recoveries, imports_s)
        click.echo(f"ledger: {fleet.ledger()}")
    success = f"{n_faults} faults, seed {seed}: no invariant is broken, and the run is at its last step"
    click.echo("\n".join(broken) or success)
    sys.exit(bool(broken))


def _befall(fleet: Fleet, rng: random.Random, kinds: list[str], place: str) -> Recovery:
    """Let something befall somebody, and wait until steps advance again.

    Raises:
        BrokenError: they don't, or an invariant is broken.
    """
    time.sleep(rng.uniform(0.0, LONGEST_REST_S))
    role, kind = rng.choice(ROLES), rng.choice(kinds)
    cause_gone_at = FAULTS[kind](fleet, role, rng.uniform(0.5, LONGEST_FAULT_S))
    fleet.wait_until_it_works((), cause_gone_at)
    steps_s = time.time() - cause_gone_at
    fleet.wait_until_it_works((role,), cause_gone_at)
    role_s = time.time() - cause_gone_at
    with fleet.frozen():
        broken = violations(fleet.run_dir, fleet.client, fleet.run_id, is_over=False)
    if broken:
        raise BrokenError(f"after {kind} of {role}:\n" + "\n".join(broken))
    click.echo(f"{place} {role}, {kind}: steps after {steps_s:.1f} s, {role} after {role_s:.1f} s")
    return Recovery(role, kind, steps_s, role_s)


def _seconds_of_imports() -> float:
    started_at = time.monotonic()
    subprocess.run([sys.executable, "-c", "import gptrec_rl.fleet.optimiser, gptrec_rl.runs.run_folder"], check=True)
    return time.monotonic() - started_at


def _show(recoveries: list[Recovery], imports_s: float) -> None:
    click.echo("\nSeconds, median / worst, until")
    click.echo(f"{'':<12}{'':<17}{'n':>5}{'steps advance':>18}{'the role reports':>18}")
    for role in ROLES:
        for kind in FAULTS:
            of_cell = [each for each in recoveries if (each.role, each.fault) == (role, kind)]
            if of_cell:
                columns = ([each.steps_s for each in of_cell], [each.role_s for each in of_cell])
                click.echo(f"{role:<12}{kind:<17}{len(of_cell):>5}" + "".join(map(_median_and_worst, columns)))
    click.echo(f"The imports of an Optimiser or a Generator take {imports_s:.1f} s on their own.")


def _median_and_worst(seconds: list[float]) -> str:
    text = f"{statistics.median(seconds):.1f} / {max(seconds):.1f}"
    return f"{text:>18}"


if __name__ == "__main__":
    main()
