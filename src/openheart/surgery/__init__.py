"""Surgery: change any number of a recorded run and see what would have happened."""
