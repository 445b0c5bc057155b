"""Train adapters: the loop, optimizer steps of equal length, ranks that fall, several trainings in one process."""
