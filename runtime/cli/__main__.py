"""Entry point of `python -m moembed.cli`."""

import sys

from moembed.cli import main

sys.exit(main())
