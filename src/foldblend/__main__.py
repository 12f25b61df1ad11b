"""`python -m foldblend train --fold 3` is `foldblend train --fold 3`."""

import sys

from foldblend.commands import main

if __name__ == "__main__":
    sys.exit(main())
