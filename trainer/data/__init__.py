"""Examples: reading, checking, generating, and the emails that Mailwright ships. May import text and compute."""
