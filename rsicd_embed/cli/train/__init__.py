"""`rsicd-embed train` and its subcommands."""
