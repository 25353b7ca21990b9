"""The whole fleet in one process: the same objects called in turn, over memory; with a seed, the same run each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gptrec_rl.config import TuneConfig
from gptrec_rl.data import Split
from gptrec_rl.errors import DivergedError, InputError
from gptrec_rl.fleet.generator import Generator
from gptrec_rl.fleet.optimiser import Optimiser
from gptrec_rl.fleet.validator import Validator
from gptrec_rl.models.gptrec import GPTRec
from gptrec_rl.transport.hub import Transport
from gptrec_rl.transport.metrics import START, MetricRecord


@dataclass(frozen=True)
class SerialFleet:
    """One Generator, the Optimiser and the Validator."""

    generator: Generator
    optimiser: Optimiser
    validator: Validator
    transport: Transport

    @classmethod
    def of(cls, student: GPTRec, split: Split, config: TuneConfig, transport: Transport) -> SerialFleet:
        """Make the fleet; nothing is done yet."""
        return cls(
            Generator(split, config, transport),
            Optimiser(student, split, config, transport, holder="serial"),
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
            InputError: a reward can't be used; what was learned before is saved, as it is on Ctrl-C.
            DivergedError: see `Learner.update`; the last learner state on disk stays as it is.
        """
        cursor = START
        self.optimiser.start()
        try:
            while True:
                self.validator.step()
                if self.optimiser.reporter.is_due or self.optimiser.is_done:
                    self.generator.report()
                    self.optimiser.report()
                cursor = self._show(cursor, on_record)
                if self.optimiser.is_done or is_stopped():
                    break
                self.generator.step()
                self.optimiser.step()
        except DivergedError:
            raise
        except (InputError, KeyboardInterrupt):
            self.optimiser.finish()
            raise
        self.optimiser.finish()
        self.validator.step()
        self._show(cursor, on_record)

    def _show(self, cursor: str, on_record: Callable[[MetricRecord], None]) -> str:
        records, cursor = self.transport.metrics.read(cursor)
        for record in records:
            on_record(record)
        return cursor
