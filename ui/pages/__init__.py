"""One file a page. May import parts, the client and the settings."""
