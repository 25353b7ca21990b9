"""What stands below Table 3: how to read it, metrics beyond the paper's, tests, trade-offs, and how rows were made."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.next_k_costs import Gap, gaps
from gptrec_rl.experiments.results import Result
from gptrec_rl.experiments.trade_offs import GOAL, Contender, Contest
from gptrec_rl.metrics import beyond_at, metric
from gptrec_rl.reporting.documents import duration
from gptrec_rl.reporting.grids import Grid
from gptrec_rl.significance import ALPHA, Comparison


def notes(evidence: Evidence) -> list[str]:
    """Say how the table reads: a sentence or two each."""
    parts = (_setting, _baseline, _seeds, _sources, _remarks, _missing, changed)
    return [note for part in parts for note in part(evidence)]


def beyond(evidence: Evidence) -> Grid:
    """Return the metrics that the paper doesn't have; nothing where a result was made before there was such a one."""
    metrics = beyond_at(evidence.study.experiments.dataset.k)
    header = ["Model", *(f"{each.name} {each.arrow}" for each in metrics)]
    lines = []
    for line in evidence.run:
        assert line.table is not None
        summary = line.table.summary()
        values = [f"{summary[each.name]:.4f}" if each.name in summary else "" for each in metrics]
        lines.append([line.row.name, *values])
    return Grid(header, lines)


def differences(evidence: Evidence) -> Grid:
    """Return each test against the baseline: mean difference, 95 % confidence interval, corrected p."""
    header = ["Model", "Metric", "difference", "95 % interval", "p"]
    lines = [
        [line.row.name, name, f"{test.difference:+.4f}", f"{test.low:+.4f} to {test.high:+.4f}", _p(test.p)]
        for line in evidence.run
        for name, test in line.comparisons.items()
    ]
    return Grid(header, lines)


def contest_grid(contest: Contest, k: int) -> Grid:
    """Return who reaches how much of a goal, the best first, tested against the model tuned for it."""
    names = [name for name in (f"NDCG@{k}", f"ILD@{k}", f"nPCOUNT@{k}") if name in contest.contenders[0].values]
    header = [
        "Model",
        *(f"{name} {metric(name).arrow}" for name in names),
        contest.goal,
        "difference",
        "95 % interval",
        "p",
    ]
    return Grid(header, [_contender(each, [*names, GOAL]) for each in contest.contenders])


def next_k_cost(evidence: Evidence) -> Grid:
    """Return what Figure 3 shows: NDCG by both strategies, and the change from Top-K to Next-K."""
    header = ["Model", "NDCG", "Top-K", "Next-K", "difference", "95 % interval", "change", "published"]
    return Grid(header, [_gap(each) for each in gaps(evidence)])


def winner(contest: Contest) -> str:
    """Say who wins a contest, how the tuned model compares with its student, and how that was tested."""
    best, *others = contest.contenders
    said = f"Best on {contest.goal}: {best.name}, "
    if best.name != contest.tuned:
        assert best.comparison is not None  # only the tuned model has none
        said += (
            f"with {best.values[GOAL]:.4f}; {contest.tuned}, tuned for it, is {best.comparison.difference:.4f} below "
            f"({_significance(best.comparison)})."
        )
    else:
        said += f"the model tuned for it, with {best.values[GOAL]:.4f}"
        rival = others[0].comparison if others else None
        said += f", {-rival.difference:.4f} above {others[0].name} ({_significance(rival)})." if rival else "."
    return " ".join([said, *_against_student(contest), *_method(contest)])


def _against_student(contest: Contest) -> Iterator[str]:
    test = next((each.comparison for each in contest.contenders if each.name == contest.student), None)
    if test is not None:
        gain, low, high = (0.0 - value for value in (test.difference, test.high, test.low))
        yield (
            f"{contest.tuned} over its student, {contest.student}: {gain:+.4f} (95 % interval {low:+.4f} to "
            f"{high:+.4f}, {_significance(test)})."
        )


def _method(contest: Contest) -> Iterator[str]:
    n_tests = len(contest.contenders) - 1
    if n_tests:
        yield (
            f"Paired two-sided t-tests over users against {contest.tuned}, p multiplied by {n_tests} tests; intervals "
            "are not corrected. Weights of rerankers are the best on the test users themselves, which favours them."
        )


def _significance(test: Comparison) -> str:
    return f"{'significant' if test.p < ALPHA else 'not significant'}, p = {_p(test.p)}".replace("= <", "<")


def making(evidence: Evidence) -> Grid:
    """Return how each row was made: budget, steps, times, machine, versions and command."""
    header = ["Row", "steps", "training", "evaluation", "machine", "torch", "commit", "command"]
    return Grid(header, [_made(result) for result in _results(evidence)])


def _setting(evidence: Evidence) -> Iterator[str]:
    results = [result for line in evidence.run for result in line.results]
    if results:
        yield (
            f"Means over all {results[0].users:,} test users, budget {evidence.study.budget}. Arrows point to better; "
            "¹ or bold is the best of a column, ² or underlined the second best."
        )
    if evidence.study.experiments.published:
        yield "Published values stand below ours, with how far ours are from them in percent."


def _baseline(evidence: Evidence) -> Iterator[str]:
    wanted = evidence.study.experiments.dataset.baseline
    if evidence.baseline is None:
        if wanted:
            yield f"No stars: the row {wanted}, which the others are tested against, has not been run."
        return
    tests = [test for line in evidence.run for test in line.comparisons.values()]
    if tests:
        yield (
            f"*+ and *-: significantly better or worse than our {evidence.baseline.row.name} at budget "
            f"{evidence.study.budget}, in the metric's own direction (paired two-sided t-tests over users, p < "
            f"{ALPHA} after Bonferroni's correction for {tests[0].n_tests} tests). They know the spread between users, "
            "not that between seeds."
        )


def _seeds(evidence: Evidence) -> Iterator[str]:
    """Say how far the seeds of a row are apart."""
    for line in evidence.run:
        if len(line.made) > 1:
            own = [result.own.means for result in line.results]
            spreads = [
                f"{each.name} {np.std([means[each.name] for means in own], ddof=1):.4f}"
                for each in evidence.metrics
                if all(each.name in means for means in own)
            ]
            yield f"{line.row.name}: mean of {len(own)} seeds; standard deviation between them {', '.join(spreads)}."
        if len(line.made) < len(line.row.seeds):
            yield f"{line.row.name}: {len(line.made)} of {len(line.row.seeds)} seeds have been run."


def _sources(evidence: Evidence) -> Iterator[str]:
    """Say where published values are from: the source of most rows, and the rows that have others."""
    names: dict[str, list[str]] = {}
    for line in evidence.lines:
        if line.published is not None:
            names.setdefault(line.published.source, []).append(line.row.name)
    sources = evidence.study.experiments.sources
    for place, source in enumerate(sorted(names, key=lambda each: -len(names[each]))):
        of = "" if place == 0 else f" of {'; '.join(names[source])}"
        yield f"Published values{of}: {sources[source]}."


def _remarks(evidence: Evidence) -> Iterator[str]:
    for line in evidence.run:
        if line.row.note:
            yield f"{line.row.name}: {line.row.note}"


def _missing(evidence: Evidence) -> Iterator[str]:
    missing = [curve.row.name for curve in evidence.curves if curve.made is None]
    if missing:
        yield f"Curves that have not been run: {'; '.join(missing)}."


def changed(evidence: Evidence) -> Iterator[str]:
    """Name rows whose file, or what they build on, is no longer what their result was made of."""
    study = evidence.study
    for result in _results(evidence):
        row = study.experiments.rows[result.row]
        reasons = []
        if result.configuration.makes_otherwise(row, result.budget):
            reasons.append("its file has changed")
        reasons += [f"{base} has been trained anew" for base in _trained_anew(evidence, result)]
        if reasons:
            command = study.command(result.row, result.seed)
            yield f"{row.name}: {' and '.join(reasons)} since its result was made; `{command}` makes it anew."


def _trained_anew(evidence: Evidence, result: Result) -> Iterator[str]:
    """Name what a result was built on that has other weights by now."""
    weights = {(each.row, each.seed): each.weights for each in _results(evidence)}
    for base, then in result.built_on.items():
        now = weights.get((base, evidence.study.seed_of(base, result.seed)))
        if now and now != then:
            yield evidence.study.experiments.rows[base].name


def _results(evidence: Evidence) -> list[Result]:
    """Return the facts of all that was made, models first."""
    made = [result for line in evidence.lines for result in line.results]
    return made + [curve.made.result for curve in evidence.curves if curve.made is not None]


def _contender(contender: Contender, names: list[str]) -> list[str]:
    test = contender.comparison
    compared = ["", "", ""]
    if test is not None:
        compared = [f"{test.difference:+.4f}", f"{test.low:+.4f} to {test.high:+.4f}", _p(test.p)]
    return [contender.name, *(f"{contender.values[name]:.4f}" for name in names), *compared]


def _gap(gap: Gap) -> list[str]:
    test = gap.comparison
    published = "" if gap.published is None else f"{gap.published:+.1%}"
    change = f"{gap.next_k / gap.top_k - 1:+.1%}" if gap.top_k else ""
    interval = f"{test.low:+.4f} to {test.high:+.4f}"
    return [
        *(gap.model, f"@{gap.k}", f"{gap.top_k:.4f}", f"{gap.next_k:.4f}"),
        *(f"{test.difference:+.4f}", interval, change, published),
    ]


def _made(result: Result) -> list[str]:
    name = result.configuration.name + (f", seed {result.seed}" if len(result.configuration.seeds) > 1 else "")
    steps = "" if result.steps is None else f"{result.steps:,}"
    times = [duration(result.training_s) if result.training_s else "", duration(result.evaluation_s)]
    return [name, steps, *times, result.machine, result.versions["torch"], result.commit or "", result.command]


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}" if p >= 1e-9 else "< 1e-9"
