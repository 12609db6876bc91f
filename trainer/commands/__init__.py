"""One file a command: parse, call, print, exit status. May import every other room."""
