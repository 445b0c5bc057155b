"""``python -m tensoradapt`` is the command line."""

import sys

from tensoradapt.lab.cli.main import main

sys.exit(main())
