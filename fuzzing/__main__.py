"""`make fuzz`: Atheris mutates the input of each reader, guided by which lines of the library it reaches."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fuzzing.targets import Target

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "results" / "fuzzing.md"
COUNTS = "counts.json"
MAX_MEMORY_MB = 1024
MAX_SECONDS_PER_INPUT = 30
MAX_INPUT_BYTES = 16_384


@click.group(invoke_without_command=True)
@click.option("--runs", default=100_000, show_default=True, type=click.IntRange(min=1), help="Inputs for each reader.")
@click.option("--only", multiple=True, help="Name of a reader; repeatable.  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), default=DOCUMENT, help="Document that gets the table.")
@click.pass_context
def main(context: click.Context, runs: int, only: tuple[str, ...], out: Path) -> None:
    """Feed mutated input to every reader, each in a process of its own; the first failure ends it."""
    if context.invoked_subcommand is not None:
        return
    from fuzzing.targets import names
    from gptrec_rl.reporting.documents import Section, write_section

    known = names()
    unknown = [name for name in only if name not in known]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}", param_hint="--only")
    started = time.monotonic()
    lines = ["| input | fed | refused | accepted | other errors | peak memory | seconds |", "| --- |" + " ---: |" * 6]
    total = 0
    for name in only or known:
        since = time.monotonic()
        found = _fuzz_apart(name, runs)
        total += found["fed"]
        lines.append(
            f"| {name} | {found['fed']:,} | {found['refused']:,} | {found['fed'] - found['refused']:,} | 0 | "
            f"{found['peak_mb']:,.0f} MB | {time.monotonic() - since:,.0f} |"
        )
        click.echo(lines[-1])
    notes = [f"{total:,} mutated inputs; peak memory includes the libraries, and ends a run at {MAX_MEMORY_MB:,} MB."]
    command = f"python -m fuzzing --runs {runs}" + "".join(f" --only {name!r}" for name in only)
    seconds = time.monotonic() - started
    write_section(out, "Fuzzing", Section("Mutated input", command, seconds, notes=["\n".join(lines), *notes]))
    click.echo(f"{total:,} inputs; wrote {out}")


def _fuzz_apart(name: str, runs: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / COUNTS
        command = [sys.executable, "-m", "fuzzing", "one", name, str(runs), folder]
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if ended.returncode != 0 or not counts.exists():
            raise click.ClickException(
                f"{name}: the reader failed; the input is in the file named here:\n{ended.stderr[-4000:]}"
            )
        found: dict[str, int] = json.loads(counts.read_text(encoding="utf-8"))
        return found


@main.command(hidden=True)
@click.argument("name")
@click.argument("runs", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
def one(name: str, runs: int, folder: Path) -> None:
    """Fuzz one reader in this process, which Atheris ends."""
    import atheris

    with atheris.instrument_imports(include=["gptrec_rl"]):
        from fuzzing.targets import targets

    target = next(target for target in targets(folder) if target.name == name)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    limits = {
        "runs": runs,
        "rss_limit_mb": MAX_MEMORY_MB,
        "timeout": MAX_SECONDS_PER_INPUT,
        "max_len": MAX_INPUT_BYTES,
    }
    options = [f"-{limit}={n}" for limit, n in limits.items()]
    atheris.Setup([sys.argv[0], *options, str(corpus)], _Counted(target, runs, folder / COUNTS))
    atheris.Fuzz()


class _Counted:
    """Feeds a target, and writes down after the last input how many there were: Atheris doesn't come back."""

    def __init__(self, target: Target, runs: int, counts: Path) -> None:
        self._target, self._runs, self._counts = target, runs, counts
        self._fed = self._refused = 0

    def __call__(self, data: bytes) -> None:
        self._fed += 1
        self._refused += not self._target.accepts(data)
        if self._fed == self._runs:
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
            found = {"fed": self._fed, "refused": self._refused, "peak_mb": round(peak_mb)}
            self._counts.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
