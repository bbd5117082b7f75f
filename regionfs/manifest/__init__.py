"""Step 1: YAML text <-> Manifest. schema holds the values, load reads, describe writes, edit changes."""
