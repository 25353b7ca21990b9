"""What stands below Table 3: how it reads, the seeds, the sources, who wins a goal, and how rows were made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gptrec_rl.experiments.evidence import Evidence
from gptrec_rl.experiments.notes import beyond, differences, making, next_k_cost, notes, winner
from gptrec_rl.experiments.text import markdown, text, write_report
from gptrec_rl.experiments.trade_offs import GOAL, Contender, Contest
from gptrec_rl.significance import Comparison


def test_notes_name_baseline_tests_and_budget(evidence: Evidence) -> None:
    said = " ".join(notes(evidence))
    assert "significantly better or worse than our Base at budget cpu" in said
    assert "correction for 15 tests" in said  # weak, student and tuned in five metrics
    assert "not that between seeds" in said


def test_notes_say_that_there_are_no_stars_without_the_baseline(make_evidence: Callable[..., Evidence]) -> None:
    said = " ".join(notes(make_evidence("base")))
    assert "No stars: the row base, which the others are tested against, has not been run." in said
    assert "significantly" not in said


def test_notes_state_the_spread_between_seeds(evidence: Evidence) -> None:
    (line,) = (note for note in notes(evidence) if "seeds;" in note)
    assert line.startswith("GPTRec-Tuned: mean of 2 seeds;")
    assert "NDCG@2 0.0000, ILD@2 0.0283" in line  # 0.40 and 0.44 are 0.02 from their mean: sqrt(2 * 0.02^2 / 1)


def test_notes_say_how_many_seeds_are_missing(evidence: Evidence) -> None:
    evidence.study.result_file("tuned", 1).unlink()
    assert "GPTRec-Tuned: 1 of 2 seeds have been run." in notes(Evidence.of(evidence.study))


def test_what_the_table_says_of_a_row_is_not_said_again_below_it(evidence: Evidence) -> None:
    assert not [note for note in notes(evidence) if "%" in note]  # differences to what was published are in the table


def test_a_rows_note_stands_below_the_table_once_it_has_a_result(evidence: Evidence) -> None:
    rows = dict(evidence.study.experiments.rows)
    for row_id in ("weak", "absent"):
        rows[row_id] = rows[row_id].model_copy(update={"note": "Trained for a minute."})
    experiments = replace(evidence.study.experiments, rows=rows)
    said = notes(Evidence.of(replace(evidence.study, experiments=experiments)))
    assert [note for note in said if "a minute" in note] == ["Weak & small: Trained for a minute."]


def test_notes_name_sources_and_missing_curves(evidence: Evidence) -> None:
    said = notes(evidence)
    assert "Published values: A <paper>." in said
    assert "Published values of Absent: Another one." in said
    assert "Curves that have not been run: Unswept." in said


def test_a_row_whose_file_has_changed_is_named(evidence: Evidence) -> None:
    rows = dict(evidence.study.experiments.rows)
    rows["student"] = rows["student"].model_copy(update={"settings": {"learning_rate": 1}})
    rows["weak"] = rows["weak"].model_copy(update={"name": "Renamed"})  # makes nothing else
    experiments = replace(evidence.study.experiments, rows=rows)
    changed = [n for n in notes(Evidence.of(replace(evidence.study, experiments=experiments))) if "has changed" in n]
    assert len(changed) == 1
    assert changed[0].startswith("GPTRec-Student: its file has changed")


def rewrite(evidence: Evidence, row_id: str, **facts: object) -> Evidence:
    """Return the evidence with other facts in a row's result."""
    file = evidence.study.result_file(row_id, 0)
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))
    return Evidence.of(evidence.study)


def test_a_row_is_named_when_what_it_builds_on_was_trained_anew(evidence: Evidence) -> None:
    rewrite(evidence, "student", built_on={"base": "first"})
    rewrite(evidence, "mmr", built_on={"base": "first"})
    for weights in ("", "first"):  # unknown, and the same
        assert not [note for note in notes(rewrite(evidence, "base", weights=weights)) if "trained anew" in note]
    anew = [note for note in notes(rewrite(evidence, "base", weights="second")) if "trained anew" in note]
    assert [note.partition(";")[0] for note in anew] == [
        *(f"{name}: Base has been trained anew since its result was made" for name in ("GPTRec-Student", "MMR"))
    ]


def test_grids_have_a_line_for_each_row_that_was_run(evidence: Evidence) -> None:
    assert [line[0] for line in beyond(evidence).lines] == ["Base", "Weak & small", "GPTRec-Student", "GPTRec-Tuned"]
    assert beyond(evidence).lines[0] == ["Base", "3.0000", "0.2500", "0.5000", "0.2500"]
    assert len(differences(evidence).lines) == 3 * 5
    made = making(evidence)
    assert [line[0] for line in made.lines][-3:] == ["GPTRec-Tuned, seed 0", "GPTRec-Tuned, seed 1", "MMR"]
    assert made.lines[0][1:4] == ["1,234", "1 min 30 s", "2 s"]


def test_what_next_k_costs_stands_beside_the_published_change_at_each_cutoff(evidence: Evidence) -> None:
    at_1, at_2 = next_k_cost(evidence).lines  # the published one of 3 is beyond the lists of 2
    assert at_2[:5] == ["Base", "@2", "0.5000", "0.2500", "-0.2500"]
    low, _, high = at_2[5].split()
    assert float(low) < -0.25 < float(high) < 0
    assert at_2[6:] == ["-50.0%", ""]
    assert at_1[:2] + at_1[6:] == ["Base", "@1", "-50.0%", "-25.0%"]


def test_students_of_rerankers_show_no_cost_of_next_k(evidence: Evidence) -> None:
    assert len(next_k_cost(rewrite(evidence, "base", settings={"rerank": None})).lines) == 2
    assert next_k_cost(rewrite(evidence, "base", settings={"rerank": {"method": "mmr"}})).lines == []


def contender(name: str, value: float, difference: float | None = None, p: float = 1.0) -> Contender:
    """Return a contender that is `difference` better than the tuned model, give or take 0.05."""
    if difference is None:
        return Contender(name, {GOAL: value})
    low, high = difference - 0.05, difference + 0.05
    return Contender(name, {GOAL: value}, Comparison(name, "tuned", GOAL, difference, low, high, p, n_tests=2))


def test_the_winner_of_a_goal_is_named_with_significance() -> None:
    tuned = contender("tuned", 0.5)
    lost = winner(Contest("ndcg=1", "tuned", "student", [contender("mmr", 0.6, 0.1, p=0.0001), tuned]))
    assert lost.startswith(
        "Best on ndcg=1: mmr, with 0.6000; tuned, tuned for it, is 0.1000 below (significant, p = 1.0e-04)."
    )
    won = winner(Contest("ndcg=1", "tuned", "student", [tuned, contender("mmr", 0.48, -0.02, p=0.5)]))
    assert won.startswith(
        "Best on ndcg=1: tuned, the model tuned for it, with 0.5000, 0.0200 above mmr (not significant, p = 0.500)."
    )
    assert winner(Contest("ndcg=1", "tuned", "student", [tuned])).endswith("with 0.5000.")


def test_the_winner_s_sentence_names_the_student_and_how_it_was_tested() -> None:
    contenders = [contender("mmr", 0.6, 0.1), contender("tuned", 0.5), contender("student", 0.3, -0.2, p=1e-12)]
    said = winner(Contest("ndcg=1", "tuned", "student", contenders))
    assert "tuned over its student, student: +0.2000 (95 % interval +0.1500 to +0.2500, significant, p < 1e-9)" in said
    assert "Paired two-sided t-tests over users against tuned, p multiplied by 2 tests; intervals are not" in said
    assert "over its student" not in winner(Contest("ndcg=1", "tuned", "not run", contenders))


def test_text_and_markdown_hold_all_parts(evidence: Evidence) -> None:
    for whole in (text(evidence), markdown(evidence)):
        assert "By hand, budget cpu" in whole
        assert "Who wins on ndcg=1,ild=1" in whole
        assert "What Next-K costs" in whole
        assert "Beyond the paper's metrics" in whole
        assert "Differences to Base" in whole
    assert "How each row was made" in markdown(evidence)
    assert "\\*+ and \\*-" in markdown(evidence)


def test_a_report_is_a_section_that_is_replaced(evidence: Evidence, tmp_path: Path) -> None:
    figures = evidence.study.folder / "figures"
    figures.mkdir()
    (figures / "figure-3.png").write_bytes(b"")
    document = tmp_path / "results" / "hand.md"
    for _ in range(2):
        write_report(document, evidence, "gptrec-rl experiment table hand")
    written = document.read_text()
    assert written.count("## By hand, budget cpu") == 1
    assert "![figure-3](hand-cpu/figures/figure-3.png)" in written
    assert "0 s on" not in written  # each row says where it was measured
