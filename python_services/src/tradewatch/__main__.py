"""`python -m tradewatch`, the same as the `tradewatch` command."""

import sys

from tradewatch.cli import main

sys.exit(main())
