"""``python -m rundbt.typed ARGS``: become the dbt command ARGS, beside the orchestrator, out of its way and without its secrets."""

from __future__ import annotations

import os
import subprocess
import sys

from rundbt import project

if __name__ == "__main__":
    project.share_files()
    project.adopt_baked()
    # A folder of its own: what it writes there is not the parse that the orchestrator goes by.
    place = str(project.target_dir() / "typed")
    os.environ |= {"DBT_TARGET_PATH": place, "DBT_LOG_PATH": place}
    os.chdir(project.project_dir())
    if os.name == "nt":  # where exec ends the process that others wait for
        sys.exit(subprocess.call(["dbt", *sys.argv[1:]], env=project.environment()))
    os.execvpe("dbt", ["dbt", *sys.argv[1:]], project.environment())
