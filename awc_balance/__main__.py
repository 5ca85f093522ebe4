"""`python -m awc_balance diagnose`: see `python -m awc_balance diagnose --help`."""

import sys

from awc_balance.diagnose.command import main

if __name__ == "__main__":
    sys.exit(main())
