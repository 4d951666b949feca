"""One file a command of the command line: its options, and `run`, which loads the library only then."""
