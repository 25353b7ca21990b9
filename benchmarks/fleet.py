"""Rows about the fleet's processes: their start, their memory, how they scale, and who waits for whom."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import work
from benchmarks.figures import Figure, number, unmeasured
from benchmarks.generators import MANY_BATCHES, N_POLICIES, generating, starting
from benchmarks.measure import Child, ChildError, Way
from benchmarks.rows import Setting
from gptrec_rl.store.trained_models import save_policy
from gptrec_rl.telemetry import names
from gptrec_rl.telemetry.history import RunHistory
from gptrec_rl.telemetry.holdups import recent_means
from gptrec_rl.telemetry.snapshot import bottleneck

PROGRAM = str(Path(sys.executable).with_name("gptrec-rl"))
FLEET_MINUTES = 1.5


def scaling(setting: Setting) -> Sequence[Figure]:
    """One generator on one core, then one on each core at the same time."""
    n = len(setting.cores)
    name = f"{n} generators on {n} cores against 1 ({setting.cuts})"
    if n < 2:
        return [unmeasured(name, "times", "at least", 0.9 * n, "this process may use 1 core")]
    try:
        with ExitStack() as stack:
            way = Way(generating, (setting.data,), calls=8)
            children = [stack.enter_context(Child(way, [core])) for core in setting.cores]
            ratios, rates = [], []
            for _ in range(setting.rounds):
                alone = children[0].round().rate
                for child in children:
                    child.start()
                turns = [child.finish() for child in children]
                together = sum(sum(turn.results) for turn in turns) / max(sum(turn.seconds) for turn in turns)
                ratios.append(together / alone)
                rates.append((together, alone))
    except ChildError as error:
        return [unmeasured(name, "times", "at least", 0.9 * n, str(error))]
    together, alone = np.median(rates, axis=0)
    notes = f"{number(together)} against {number(alone)} lists/s"
    return [Figure.of(name, ratios, "times", "at least", 0.9 * n, notes)]


def start_up(setting: Setting) -> Sequence[Figure]:
    """What a generator needs to start, and to take up a policy; and what the command needs to say what it can do."""
    data = setting.cuts
    first = f"first batch of a generator after its start, over memory ({data})"
    pick_up = f"new policy taken up by a generator, over memory ({data})"
    memory = f"peak memory of a generator, over memory ({data})"
    try:
        with tempfile.TemporaryDirectory() as store:
            policy = work.policy(work.open_data(setting.data).catalogue.n_items)
            way = Way(starting, (setting.data, store, policy.to_files()))
            with Child(way, setting.cores[:1], warm_up=False) as child:
                peak = child.peak_memory()  # before the measurement keeps more policies than a generator has
                found = child.round().results[0]
    except ChildError as error:
        missing = (first, "s", 10.0), (pick_up, "ms", 100.0), (memory, "MB", 500.0)
        return [unmeasured(name, unit, "at most", bound, str(error)) for name, unit, bound in missing]
    return [
        Figure.of(first, [found["first_batch_s"]], "s", "at most", 10),
        Figure.of(pick_up, [found["pick_up_ms"]], "ms", "at most", 100, f"slowest of {N_POLICIES}"),
        Figure.of(memory, [peak], "MB", "at most", 500, f"after {MANY_BATCHES} batches"),
        Figure.of("gptrec-rl --help", [_help_seconds() for _ in range(setting.rounds)], "s", "at most", 0.5),
    ]


def _help_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([PROGRAM, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def waiting(setting: Setting) -> Sequence[Figure]:
    """Let a real fleet run, and ask its metrics for how long the optimiser waited."""
    name = f"optimiser waiting for lists, in a fleet on {len(setting.cores)} cores ({setting.cuts})"
    with tempfile.TemporaryDirectory() as folder:
        command = _fleet_command(setting, Path(folder))
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            reason = f"the fleet ended with exit code {ended.returncode}: {ended.stderr.strip()[-200:]}"
            return [unmeasured(name, "%", "at most", 5, reason)]
        history = RunHistory.read(Path(folder) / "run")
    shares = [100 * record.values[names.WAIT_SHARE] for record in history.recent["optimiser", 0]]
    generators = 100 * recent_means(history, "generator").get(names.WAIT_SHARE, 0.0)
    notes = f"median of the last minute; generators {number(generators)} %; the metrics say: {bottleneck(history)}"
    figure = Figure.of(name, shares, "%", "at most", 5, notes)
    named = bottleneck(history) == "the generators are the bottleneck"
    return [replace(figure, verdict="yes, named") if figure.verdict == "no" and named else figure]


def _fleet_command(setting: Setting, folder: Path) -> list[str]:
    """Prepare the run: the trained student and its data, or an untrained one in a made-up world."""
    data, student = setting.data, setting.student
    split = work.open_data(data)
    if data is None:
        data = folder / "data.npz"
        split.interactions.save(data)
    if setting.data is None or student is None:
        student = folder / "student"
        files = work.policy(split.catalogue.n_items).to_files()
        save_policy(student, files, step=0, catalogue_hash=split.catalogue.hash, split_hash=split.hash, config={})
    options = {"data": data, "student": student, "run-dir": folder / "run", "max-minutes": FLEET_MINUTES}
    return [PROGRAM, "tune", *(f"--{option}={value}" for option, value in options.items())]
