"""How good a version is: its answers, figures, criteria, card and page. May import data, text and compute."""
