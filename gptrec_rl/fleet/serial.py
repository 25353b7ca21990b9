"""The whole fleet in one process: the same objects called in turn, over memory; with a seed, the same run each time.

A learner state holds cache and generator as well: whenever the process is killed, the resumed run is the unbroken one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.errors import DivergedError, InputError
from gptrec_rl.fleet.generator import STATE_FILE, Generator
from gptrec_rl.fleet.optimiser import Optimiser
from gptrec_rl.fleet.recorder import Recorder
from gptrec_rl.fleet.shared import Transport
from gptrec_rl.fleet.validator import Validator
from gptrec_rl.learning import state
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.telemetry.stream import START, MetricRecord, MetricsStream
from gptrec_rl.transport.memory_cache import MemoryCache

MOST_IDLE_TURNS = 100
"""Turns of one process in which nothing was learned; the first batch that is any good would have been."""


@dataclass(frozen=True)
class SerialFleet:
    """One Generator, the Optimiser and the Validator."""

    generator: Generator
    optimiser: Optimiser
    validator: Validator
    transport: Transport

    @classmethod
    def of(
        cls,
        student: GPTRec,
        split: Split,
        config: TuneConfig,
        transport: Transport,
        recorder: Recorder | None = None,
    ) -> SerialFleet:
        """Make the fleet over a transport within this process; nothing is done yet."""
        generator, cache = Generator(split, config, transport), transport.cache
        assert isinstance(cache, MemoryCache)
        return cls(
            generator,
            Optimiser(
                student,
                split,
                config,
                transport,
                holder="serial",
                recorder=recorder,
                companions=lambda: {**generator.to_files(), **cache.to_files()},
            ),
            Validator(split, config, transport),
            transport,
        )

    def run(
        self,
        on_record: Callable[[MetricRecord], None] = lambda record: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take turns until the optimiser is done, or somebody asks to stop; each published policy is scored.

        Raises:
            InputError: a reward can't be used, or no batch can be learned from; what was learned before is saved, as it
                is on Ctrl-C.
            DivergedError: see `Learner.update`; the last learner state on disk stays as it is.
        """
        cursor, n_idle = START, 0
        self._start()
        try:
            while True:
                self.validator.step()
                if self.optimiser.reporter.is_due or self.optimiser.is_done:
                    self.generator.report()
                    self.optimiser.report()
                cursor = show_new(self.transport.metrics, cursor, on_record)
                if self.optimiser.is_done or is_stopped():
                    break
                self.generator.step()
                n_idle = n_idle + 1 if self.optimiser.step() is None else 0
                if n_idle >= MOST_IDLE_TURNS:
                    raise self._stuck()
                # Whoever resumes publishes first, which is no other policy than there would have been.
                if self.optimiser.has_just_published and self.optimiser.is_save_due:
                    self.optimiser.save()
        except DivergedError:
            raise
        except (InputError, KeyboardInterrupt):
            self.optimiser.finish()
            raise
        self.optimiser.finish()
        if self.optimiser.is_done:  # who has stopped it goes on some day
            self.validator.step()
        show_new(self.transport.metrics, cursor, on_record)

    def _stuck(self) -> InputError:
        """Say why nothing is learned, and nothing will be."""
        cache = self.transport.cache
        if cache.quarantined():
            return InputError(
                "the only generator is in quarantine, since its log-probabilities aren't those of its policy (see the "
                "warning above): compute with precision=fp32 if that is rounding, or report it"
            )
        ledger = cache.ledger()
        return InputError(
            f"no batch was learned from in {MOST_IDLE_TURNS} turns: of {ledger.generated} generated, {ledger.stale} "
            f"were stale, {ledger.rejected} rejected and {ledger.evicted} evicted; look at the warnings above, or "
            "raise fleet.max_staleness"
        )

    def _start(self) -> None:
        saved = self.optimiser.start()
        if saved is None or STATE_FILE not in saved[1]:  # a new run, or one of a fleet of processes
            return
        entry, files = saved
        assert isinstance(self.transport.cache, MemoryCache)
        with state.refusals(entry.folder):
            self.transport.cache.resume(files)
            self.generator.resume(files, self.optimiser.token)


def show_new(stream: MetricsStream, cursor: str, on_record: Callable[[MetricRecord], None]) -> str:
    """Hand on the records after a place in the stream, and return the place behind them."""
    records, cursor = stream.read(cursor)
    for record in records:
        on_record(record)
    return cursor
