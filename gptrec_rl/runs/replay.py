"""A recorded run once more, in one process: its learner gets the same batches and comes to the same weights.

`gptrec-rl tune --replay` runs it. A published policy that differs by one bit is an error: it would be another run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from gptrec_rl.config import TuneConfig
from gptrec_rl.errors import InputError
from gptrec_rl.fleet.optimiser import Optimiser
from gptrec_rl.fleet.recorder import weights_hash
from gptrec_rl.fleet.recording import Header, Recording
from gptrec_rl.fleet.serial import show_new
from gptrec_rl.fleet.validator import Validator
from gptrec_rl.runs.run_folder import Run
from gptrec_rl.telemetry.stream import START, MetricRecord


def config_of_replay(recording: Recording, data: Path | None = None) -> TuneConfig:
    """Return the configuration with which the run is repeated.

    Args:
        recording: what is to be repeated.
        data: the data file, None for the one that the run had.
    """
    config = recording.header.config
    fleet = config.fleet.model_copy(update={"record": False})
    changes = {"steps": recording.steps, "max_minutes": None, "fleet": fleet, "data": str(data or config.data)}
    return config.model_copy(update=changes)


def replay(recording: Recording, run: Run, on_record: Callable[[MetricRecord], None] = lambda record: None) -> int:
    """Take the recorded steps, score the published policies, and return how many were those of the recorded run.

    Sets this process's numerical threads to as many as the recorded learner had.

    Args:
        recording: of another run folder.
        run: of this configuration (`config_of_replay`), student and data.
        on_record: called with each record of the metrics stream.

    Raises:
        InputError: data or student are others, this machine can't compute as the other did, or a policy came out
            different.
    """
    header = recording.header
    torch.set_num_threads(header.threads)
    student = run.student()
    _require_same_start(header, run, weights_hash(student))
    transport = run.memory_transport()
    optimiser = Optimiser(student.to(header.device), run.split, run.config, transport, holder="replay")
    validator = Validator(run.split, run.config, transport)
    optimiser.start()
    n_same, cursor = 0, START
    for step, batch, published in recording.draws():
        validator.step()
        optimiser.learn(batch)
        if published is not None:
            if weights_hash(optimiser.learner.policy) != published:
                raise InputError(
                    f"the policy of step {step} is not the recorded one; replay on a processor of the same kind, with "
                    f"torch {header.torch} (this is {torch.__version__})"
                )
            n_same += 1
        if optimiser.reporter.is_due:
            optimiser.report()
        cursor = show_new(transport.metrics, cursor, on_record)
    optimiser.finish()
    validator.step()
    show_new(transport.metrics, cursor, on_record)
    return n_same


def _require_same_start(header: Header, run: Run, student: str) -> None:
    here = {"catalogue": run.split.catalogue.hash, "split": run.split.hash, "student": student}
    recorded = {"catalogue": header.catalogue_hash, "split": header.split_hash, "student": header.student}
    for name, value in recorded.items():
        if here[name] != value:
            raise InputError(
                f"the recorded run had another {name} ({value[:12]}, here it is {here[name][:12]}); give the data file "
                "and the run folder that it was recorded with"
            )
    if header.device == "cuda" and not torch.cuda.is_available():
        raise InputError("the run was recorded on a GPU, and there is none here; replay it on such a machine")
