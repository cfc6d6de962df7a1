"""The `billing` command line: the client's calls as commands, their answers as tables or JSON."""
