"""What a study is made of; `--mode=sweep` and `--mode=report` are its two commands."""
