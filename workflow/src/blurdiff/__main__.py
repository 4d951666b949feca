"""`python -m blurdiff STAGE …`: the same as the console command `blurdiff`."""

import sys

from blurdiff.cli import main

sys.exit(main())
