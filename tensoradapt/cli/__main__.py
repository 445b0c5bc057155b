"""``python -m tensoradapt.cli``."""

from tensoradapt.cli.main import main

raise SystemExit(main())
