"""`python -m pisa_ray` is the `pisa-ray` command."""

import sys

from pisa_ray.cli.main import main

sys.exit(main())
