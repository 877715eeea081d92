"""`python -m tests.corpus --url http://127.0.0.1:8000/ai --key K --admin-token T --replay-port 9900`."""

import sys

from .run import main

sys.exit(main())
