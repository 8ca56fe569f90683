"""A sample of the mutated files of `make fuzz`: no fault but a sentence, no broken file read."""

from fuzzing import run


def test_mutated_files_are_read_or_refused():
    ended, faults = run(300, seed=1)
    assert faults == []
    assert min(ended["read"], ended["refused"]) > 30
