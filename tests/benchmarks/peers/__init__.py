"""Other systems beside us in one run, each set up as its own documentation would have it."""
