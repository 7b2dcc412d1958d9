"""Entry point of `python -m moembed`."""

import sys

from moembed.cli import main

sys.exit(main())
