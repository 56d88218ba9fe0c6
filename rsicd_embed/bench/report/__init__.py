"""Records as pages for people: static HTML with plots, complete in one file."""
