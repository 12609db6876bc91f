"""The training run, from a recipe and emails to a published version. May import evaluation and what is below it."""
