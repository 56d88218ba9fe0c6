"""`rsicd-embed train` and the commands below it."""
