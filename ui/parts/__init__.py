"""The parts of the pages: one side, the form, kept examples, export. Knows no page."""
