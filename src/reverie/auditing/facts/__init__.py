"""Plain facts about samples: which rows they repeat or come near."""
