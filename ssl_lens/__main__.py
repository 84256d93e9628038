"""`python -m ssl_lens` is `ssl-lens`."""

import sys

from ssl_lens.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
