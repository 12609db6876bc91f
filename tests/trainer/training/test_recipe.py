import re
from pathlib import Path

import pytest

from adapters.errors import ConfigError
from trainer.cli import main
from trainer.training.recipe import RECIPES, Recipe, default, learning_rate_prior, load


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text("epochs: 2\nbatch_size: 4\n")
    return tmp_path / "mine.yaml"


@pytest.mark.parametrize("name", ["quick", "shipped", "article", "gpu"])
def test_a_shipped_recipe_loads_and_remembers_its_name(name: str):
    recipe = load(name, {})
    assert recipe.epochs >= 1
    assert recipe.recipe == name


def test_every_shipped_recipe_is_one_that_the_help_names():
    assert sorted(file.name for file in RECIPES.iterdir()) == ["article.yaml", "gpu.yaml", "quick.yaml", "shipped.yaml"]


def test_article_is_the_lessons_numbers():
    recipe = load("article", {})
    assert (recipe.learning_rate, recipe.epochs, recipe.batch_size) == (1e-4, 3, 4)


def test_the_recipe_for_a_gpu_fits_the_servers_default_limits():
    recipe = load("gpu", {})
    assert (recipe.rank, recipe.max_length) == (16, 2048)
    assert recipe.learning_rate is not None
    assert recipe.learning_rate < learning_rate_prior(2560)


def test_the_default_recipe_follows_the_base_model():
    assert default("Qwen/Qwen3-4B-Instruct-2507") == default("qwen3-4b-instruct-2507") == "gpu"
    assert default("smollm2-135m-instruct") == default("/models/mine") == "quick"


@pytest.mark.parametrize("name", ["quick", "shipped"])
def test_the_other_recipes_leave_the_learning_rate_to_the_prior(name: str):
    assert load(name, {}).learning_rate is None


def test_a_recipe_may_be_a_file(mine: Path):
    assert load(str(mine), {}) == Recipe(recipe=str(mine), epochs=2, batch_size=4)


def test_a_flag_wins_over_the_recipe_and_one_that_was_not_given_does_not(mine: Path):
    recipe = load(str(mine), {"epochs": 7, "learning_rate": 5e-4, "seed": 0})
    assert recipe == Recipe(recipe=str(mine), epochs=7, batch_size=4, learning_rate=5e-4)


def test_a_flag_of_zero_wins_too():
    assert load("quick", {"heldout": 0}).heldout == 0


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="'slow'") as caught:
        load("slow", {})
    assert "article, gpu, quick, shipped" in caught.value.hint


@pytest.mark.parametrize("name", ["../nowhere/quick", "", "quick.yml"])
def test_a_path_without_a_file_is_no_recipe(name: str):
    with pytest.raises(ConfigError, match="there is no recipe"):
        load(name, {})


def test_an_unknown_field_is_refused_by_name(mine: Path):
    mine.write_text(mine.read_text() + "learning_rte: 1.0e-3\n")
    with pytest.raises(ConfigError, match=r"learning_rte = 0\.001") as caught:
        load(str(mine), {})
    assert caught.value.hint.startswith("the fields are epochs, batch_size, learning_rate, warmup,")


def test_the_help_names_every_field_as_a_flag_or_as_one_of_the_file(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["sft", "--help"])
    printed = capsys.readouterr().out
    of_the_file = re.search(r"in a recipe's file only: ([^.]*)\.", " ".join(printed.split()))
    assert of_the_file
    named = set(of_the_file[1].split(", ")) | {
        flag.replace("-", "_") for flag in re.findall(r"^  --([a-z-]+)", printed, re.MULTILINE)
    }
    assert set(Recipe.model_fields) - {"recipe"} <= named


def test_all_wrong_fields_are_listed_at_once(mine: Path):
    mine.write_text("epochs: 0\nbatch_size: many\nlearning_rate: 3\nmood: sunny\n")
    with pytest.raises(ConfigError) as caught:
        load(str(mine), {"heldout": 1.0})
    for wrong in ("epochs = 0", "batch_size = many", "learning_rate = 3", "mood = sunny", "heldout = 1.0"):
        assert wrong in str(caught.value)


def test_a_recipe_without_epochs_says_that_they_are_missing(mine: Path):
    mine.write_text("batch_size: 4\n")
    with pytest.raises(ConfigError, match=r"epochs.*required"):
        load(str(mine), {})


@pytest.mark.parametrize(
    ("text", "reason"), [("- epochs", "holds a list"), ("quick", "holds a str"), ("a: [", "not YAML")]
)
def test_a_file_that_is_no_recipe_says_so(mine: Path, text: str, reason: str):
    mine.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load(str(mine), {})


def test_a_file_that_is_no_text_says_so(mine: Path):
    mine.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=str(mine)):
        load(str(mine), {})


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 65), ("rank", 0), ("max_length", 63), ("dropout", 1.0), ("learning_rate", 0.0), ("repeats", 0)],
)
def test_a_flag_out_of_bounds_is_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"{field} = {value}"):
        load("quick", {field: value})


def test_the_prior_is_about_1e_3_for_the_packaged_base_model():
    assert learning_rate_prior(576) == pytest.approx(1e-3, rel=0.05)


def test_the_prior_is_in_the_usual_range_for_the_default_base_model_on_a_gpu():
    assert 1e-4 <= learning_rate_prior(2560) <= 5e-4


def test_the_prior_falls_as_the_base_model_grows():
    rates = [learning_rate_prior(hidden) for hidden in (64, 576, 960, 2048, 4096, 8192)]
    assert rates == sorted(rates, reverse=True)
    assert all(0 < rate < 1 for rate in rates)


def test_a_limit_that_is_none_is_refused_with_the_recipe(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("epochs: 1\nbatch_size: 2\nlimits: [fact_kept >= 0.5, facts_kept is good]\n")
    with pytest.raises(ConfigError, match=r"unknown figure, fact_kept; .* is not a criterion"):
        load(str(tmp_path / "mine.yaml"), {})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("use_dora: true", "vLLM cannot serve DoRA"),
        ("modules_to_save: [lm_head]", "vLLM cannot serve fully trained modules"),
        ("bias: all", "it trains biases"),
        ("init_lora_weights: pissa", "it changes the base model's weights"),
    ],
)
def test_what_peft_could_train_and_vllm_not_serve_is_refused_with_the_reason(mine: Path, line: str, reason: str):
    mine.write_text(f"{mine.read_text()}{line}\n")
    with pytest.raises(ConfigError, match=reason):
        load(str(mine), {})
