"""Images for people: contact sheets, pages of hits, sheets of augmented views."""
