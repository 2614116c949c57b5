"""What the tasks are made of. Nothing in here knows Invoke.

``docker/common`` joins the import path because the task runner and the images share one package: the same job names,
the same fingerprint of the dbt project, the same run protocol.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

sys.path.append(str(ROOT / "docker" / "common"))
