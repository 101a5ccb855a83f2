"""What pytest leaves to `test_corpus.py`, which loads the tables of inputs beside it."""

collect_ignore = ["corpus.py", "settings_files.py", "single_files.py"]
