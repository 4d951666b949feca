"""Every stage timed beside what a user would take instead, in one run: `snakemake benchmark`."""
