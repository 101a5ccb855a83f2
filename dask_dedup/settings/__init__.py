"""Settings: one frozen object per stage; TOML, command line and Python share names and defaults."""
