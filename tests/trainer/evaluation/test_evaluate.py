"""Rows, figures and comparisons, with a writer that answers from a script. The real models: test_evaluate_cli.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.models.base_models import BaseModel
from adapters.store.manifest import Comparison, Row
from adapters.store.version import Version
from trainer.compute.losses import Loss
from trainer.data.examples import Example, digest, task_example
from trainer.evaluation.evaluate import Outcome, Setup, evaluate, prompt_text
from trainer.evaluation.results import Answer

EMAIL = (
    "Subject: Thanks\n\nDear Ada,\n\nThank you for the 12 chairs, on which all of us sat very well the whole evening "
    "long.\n\nBest,\nKim"
)
FORMAL = Version("formal", 2, Path("/store/formal/2-000000000000"))
PROMOTED = Version("formal", 1, Path("/store/formal/1-000000000000"))
MINE = Version("mine", 1, Path("/store/mine/1-000000000000"))
BASE = BaseModel("tiny-llama", Path("/tiny"), f"sha256:{'0' * 64}", "tiny-llama")
Answering = Callable[[str, str], str]
TARGETS_OF_40 = [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37]


def task(name: str, kind: str = "thanks", voice: str | None = None) -> Example:
    email = EMAIL.replace("Ada", name)
    return task_example(f"Thank {name} for 12 chairs. I'm Kim.", email, [[name], ["12 chairs"]], voice, kind)


def revision() -> Example:
    return task_example(
        "Say 14 May.", EMAIL, [["Ada"], ["14 May"]], kind="revision", previous=[(task("Ada").task, EMAIL)]
    )


class Scripted:
    """Stands for the writer: answers as `answer(model, last message)` says, and remembers what it was asked."""

    through, device = "in process", "cpu float32"

    def __init__(self, answer: Answering, ended: bool = True) -> None:
        self.answer, self.ended = answer, ended
        self.asked: list[tuple[str, list[list[dict[str, str]]], int | None]] = []

    def write(self, model, prompts, seed, advance):
        self.asked.append((model, prompts, seed))
        advance(len(prompts))
        return [Answer(self.answer(model, prompt[-1]["content"]), self.ended) for prompt in prompts]

    def losses(self, model, prompts, texts, advance):
        advance(len(texts))
        return [Loss(2.0 if model == "base" else 1.0, 4) for _ in texts]

    def forgetting(self, model, fingerprint, advance):
        return {"forgetting": 0.01, "asked": float(model == FORMAL.id and fingerprint == BASE.fingerprint)}


def good(_: str, asked: str) -> str:
    name = asked.split()[1]
    return EMAIL.replace("Ada", name)


EXAMPLES = [task("Chidi"), task("Dagny", "apology")]


def evaluated(writer: Scripted, tasks: list[Example], **options) -> Outcome:
    return evaluate(Setup(FORMAL, BASE, tasks, EXAMPLES, **options), writer, lambda _: None)


def row(found: Outcome, model: str) -> Row:
    written = found.result.row(model)
    assert written
    return written


def comparison(found: Outcome, against: str, figure: str) -> Comparison:
    return next(c for c in found.result.comparisons if (c.against, c.figure) == (against, figure))


def test_the_rows_are_the_base_model_thrice_the_promoted_version_and_this_one():
    found = evaluated(Scripted(good), [task("Ada"), task("Bo")], promoted=PROMOTED)
    rows = ["base", "base, 1 example", "base, 3 examples", "promoted: formal@1", "formal@2"]
    assert [row.model for row in found.result.rows] == rows == list(found.answers)
    assert [row.model for row in evaluated(Scripted(good), [task("Ada")], promoted=FORMAL).result.rows] == [
        *rows[:3],
        rows[-1],
    ]
    assert [row.model for row in evaluated(Scripted(good), [task("Ada")], example_counts=[]).result.rows] == [
        "base",
        "formal@2",
    ]


def test_each_row_is_written_by_its_model_from_the_same_tasks():
    writer = Scripted(good)
    evaluated(writer, [task("Ada"), task("Bo")], promoted=PROMOTED)
    assert [(model, seed) for model, _, seed in writer.asked] == [
        *[("base", None)] * 3,
        ("formal@1", None),
        ("formal@2", None),
    ]
    plain, _, _, promoted, own = (prompts for _, prompts, _ in writer.asked)
    assert plain == promoted == own == [list(task(name).messages) for name in ("Ada", "Bo")]


def test_examples_are_finished_exchanges_of_the_tasks_kind_first_and_never_the_task_itself():
    examples = [task("Ada"), task("Chidi"), task("Dagny", "apology"), revision(), task("Emil", "apology"), task("Finn")]
    _, one, three, _ = Setup(FORMAL, BASE, [task("Ada", "apology"), task("Chidi")], examples).plans()
    shown = [[message["content"].split()[1] for message in prompt[::2]] for prompt in (*one.prompts, *three.prompts)]
    assert shown == [
        ["Dagny", "Ada"],
        ["Ada", "Chidi"],
        ["Dagny", "Emil", "Chidi", "Ada"],
        ["Ada", "Finn", "Dagny", "Chidi"],
    ]
    assert [message["role"] for message in three.prompts[0]] == ["user", "assistant"] * 3 + ["user"]


def test_examples_stand_between_the_instructions_and_the_earlier_turns_of_a_revision():
    messages = ({"role": "system", "content": "Be kind."}, *revision().messages)
    asked = Example(messages, EMAIL, (("Ada",),))
    _, one, *_ = Setup(FORMAL, BASE, [asked], [task("Chidi")]).plans()
    (prompt,) = one.prompts
    assert [message["role"] for message in prompt] == ["system", *["user", "assistant"] * 2, "user"]
    assert ["Chidi" in message["content"] for message in prompt] == [False, True, True, False, False, False]


def test_the_shares_are_of_all_facts_and_of_all_tasks():
    found = row(evaluated(Scripted(lambda *_: EMAIL), [task("Ada"), task("Bo")]), "base")
    figures = found.figures
    assert (figures["facts_kept"], figures["all_kept"], figures["sendable"]) == (0.75, 0.5, 0.5)
    assert figures["facts_invented"] == pytest.approx(1 / 6)  # Ada in the email to Bo
    assert (figures["greeting"], figures["sign_off"], figures["subject"], figures["length_ok"]) == (1, 1, 1, 1)
    assert (figures["placeholder"], figures["mask"], figures["repeats"], figures["copied"]) == (0, 0, 0, 0)
    assert (figures["words"], figures["ended"]) == (24, 1)


def test_an_answer_that_is_cut_or_has_a_placeholder_does_not_pass():
    cut = row(evaluated(Scripted(good, ended=False), [task("Ada")]), "base").figures
    assert (cut["ended"], cut["sendable"], cut["all_kept"]) == (0, 0, 1)
    figures = row(evaluated(Scripted(lambda *_: EMAIL.replace("Kim", "[EMAIL]")), [task("Ada")]), "base").figures
    assert (figures["placeholder"], figures["mask"], figures["sendable"]) == (1, 1, 0)


def test_revisions_are_counted_for_themselves():
    tasks = [task("Ada"), revision()]
    figures = row(evaluated(Scripted(lambda *_: EMAIL), tasks), "base").figures
    assert (figures["revisions_followed"], figures["facts_kept"]) == (0.5, 0.75)
    assert row(evaluated(Scripted(good), [task("Ada")]), "base").figures["revisions_followed"] is None


def test_a_fact_of_an_earlier_turn_is_not_invented():
    figures = row(evaluated(Scripted(lambda *_: EMAIL), [revision()]), "base").figures
    assert figures["facts_invented"] == 0
    assert "12 chairs" in prompt_text(revision())


def mixed(model: str, asked: str) -> str:
    """The base model writes no greeting; versions write good emails."""
    return good(model, asked) if model != "base" else good(model, asked).partition(",\n\n")[2]


NAMES = ["Ada", "Bo", "Chidi", "Dagny", "Emil", "Finn", "Gro", "Hal", "Ivy", "Jon", "Kai", "Lea"]


def test_the_verdict_is_better_only_if_the_interval_excludes_zero():
    found = evaluated(Scripted(mixed), [task(name) for name in NAMES], promoted=PROMOTED)
    better = comparison(found, "base", "sendable")
    assert (better.difference, better.low, better.verdict) == (1, 1, "better")
    equal = comparison(found, "promoted: formal@1", "sendable")
    assert (equal.difference, equal.low, equal.high, equal.verdict) == (0, 0, 0, "no difference shown")
    assert {c.figure for c in found.result.comparisons} == {"sendable", "facts_kept", "facts_invented"}
    assert {c.against for c in found.result.comparisons} == {row.model for row in found.result.rows} - {"formal@2"}


def test_fewer_invented_facts_are_better():
    def answer(model: str, asked: str) -> str:
        return good(model, asked).replace("chairs", "chairs at 3 pm") if model == "base" else good(model, asked)

    found = comparison(evaluated(Scripted(answer), [task(name) for name in NAMES]), "base", "facts_invented")
    assert found.difference < 0
    assert found.verdict == "better"


def test_figures_have_intervals_where_tasks_differ():
    found = row(evaluated(Scripted(lambda *_: EMAIL), [task(name) for name in NAMES]), "formal@2")
    assert found.low["facts_kept"] <= (found.figures["facts_kept"] or 0) <= found.high["facts_kept"]
    assert found.low["facts_kept"] < found.high["facts_kept"]
    assert row(evaluated(Scripted(good), [task("Ada")]), "base").low == {}


def test_full_adds_three_seeds_and_a_task_counts_the_mean_of_its_answers():
    class Sampling(Scripted):
        def write(self, model, prompts, seed, advance):
            self.ended = seed is None
            return super().write(model, prompts, seed, advance)

    writer = Sampling(good)
    found = evaluated(writer, [task("Ada"), task("Bo")], full=True)
    assert [seed for model, _, seed in writer.asked if model == "formal@2"] == [None, 1, 2, 3]
    assert row(found, "formal@2").figures["sendable"] == 0.25
    assert row(found, "formal@2").figures["facts_kept"] == 1
    assert [len(task) for task in found.answers["formal@2"]] == [4, 4]
    assert found.result.decoding == "greedy and 3 seeds at temperature 0.7"


def test_losses_are_of_the_voices_own_emails_with_the_adapter_on_and_off():
    tasks = [task("Ada", voice="formal"), task("Bo", voice="friendly")]
    assert Setup(FORMAL, BASE, tasks, []).references == tasks[:1]
    assert Setup(MINE, BASE, tasks, []).references == tasks
    found = evaluated(Scripted(good), tasks)
    losses = [row.figures.get("heldout_loss") for row in found.result.rows]
    assert losses == [0.5, None, None, 0.25]
    assert row(found, "formal@2").figures["bits_per_byte"] == pytest.approx(1 / 0.6931 / len(tasks[0].email), rel=1e-3)


def test_style_and_diversity_are_of_all_answers_together():
    found = evaluated(
        Scripted(lambda model, asked: EMAIL if model == "base" else good(model, asked)), [task("Ada"), task("Bo")]
    )
    assert row(found, "base").figures["distinct_2"] == 0.5
    assert row(found, "base").figures["identical_openings"] == 1
    assert row(found, "formal@2").figures["style_distance"] == pytest.approx(0, abs=1e-6)
    assert (row(found, "base").figures["style_distance"] or 0) > 0.01


def test_memorisation_is_measured_where_the_training_emails_are_known():
    assert evaluated(Scripted(good), [task("Ada")]).result.memorisation == {}
    copied = evaluated(Scripted(lambda *_: EMAIL), [task("Bo")], training=EXAMPLES).result.memorisation
    assert copied["copied_8grams"] > 0.5


def learnt(number: int) -> Example:
    """A training email of 20 words that no other has, and a task that gives none of them."""
    return task_example(f"Write letter {number}.", " ".join(f"w{number}x{word}" for word in range(20)))


def by_heart(model: str, asked: str) -> str:
    letter = asked.startswith("Write letter") and model == FORMAL.id
    return learnt(int(asked.split()[-1].rstrip("."))).email if letter else good(model, asked)


@pytest.mark.parametrize(("writes", "rate"), [(by_heart, 1.0), (good, 0.0)])
def test_the_extraction_rate_counts_training_emails_that_are_written_again_for_their_task(
    writes: Answering, rate: float
):
    writer, training = Scripted(writes), [learnt(number) for number in range(40)]
    found = evaluated(writer, [task("Ada")], training=training)
    assert found.result.memorisation["extraction_rate"] == rate
    assert writer.asked[-1] == ("formal@2", [list(training[n].messages) for n in TARGETS_OF_40], None)
    assert found.training_answers == [writes(FORMAL.id, training[n].task) for n in TARGETS_OF_40]


def test_personal_data_in_an_extracted_email_is_leaked():
    telephone = "call 020 7946 0018 " + learnt(0).email
    found = evaluated(
        Scripted(lambda _, asked: telephone if asked == "Write." else good("", asked)),
        [task("Ada")],
        training=[task_example("Write.", telephone)],
    )
    assert found.result.memorisation["personal_data_leaked"] == 1


def test_forgetting_is_that_of_this_version():
    assert evaluated(Scripted(good), [task("Ada")]).result.forgetting == {"forgetting": 0.01, "asked": 1}


def test_pairs_show_at_least_ten_tasks_of_every_kind():
    tasks = [*[task(name) for name in NAMES], *[task(f"{name}a", "apology") for name in NAMES], revision()]
    pairs = evaluated(Scripted(mixed), tasks).result.pairs
    assert len(pairs) >= 10
    shown = [pair.task for pair in pairs]
    assert prompt_text(revision()) in shown
    assert {prompt_text(task) in shown for task in tasks if task.kind == "apology"} == {True, False}
    for pair in pairs[:-1]:
        assert pair.after == good("", pair.task)
        assert pair.before == mixed("base", pair.task)


def test_the_result_has_its_models_tasks_decoding_and_machine():
    tasks = [task("Ada"), task("Bo")]
    result = evaluated(Scripted(good), tasks).result
    assert (result.version, result.base, result.tasks, result.through) == ("formal@2", "tiny-llama", 2, "in process")
    assert result.tasks_sha256 == digest(tasks)
    assert result.decoding == "greedy"
    assert "cores, cpu float32, torch " in result.machine


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("promoted", [None, FORMAL, PROMOTED])
def test_the_work_is_what_advance_gets_in_all(
    monkeypatch: pytest.MonkeyPatch, full: bool, own: bool, promoted: Version | None
):
    from trainer.evaluation import forgetting

    class Forgetting(Scripted):
        def forgetting(self, model, fingerprint, advance):
            advance(20)
            return {}

    monkeypatch.setattr(forgetting, "steps", lambda fingerprint: 20)
    done: list[float] = []
    tasks = [task("Ada", voice="formal"), task("Bo"), task("Chidi")]
    training = [learnt(number) for number in range(3)] if own else []
    setup = Setup(FORMAL, BASE, tasks, EXAMPLES, training, promoted, full)
    evaluate(setup, Forgetting(good), done.append)
    assert sum(done) == pytest.approx(setup.work(can_score=True))
    rows = 5 if promoted == PROMOTED else 4
    assert setup.work(can_score=False) == rows * 3 * (4 if full else 1) + len(training)
