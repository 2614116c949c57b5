"""``python -m rundbt.typed ARGS``: become the dbt command ARGS, beside the orchestrator, out of its way and without its secrets."""

from __future__ import annotations

import os
import sys

from rundbt import project

if __name__ == "__main__":
    project.share_files()
    try:
        project.adopt_baked()
    except project.ParseFailed as error:
        sys.exit(str(error))
    # A folder of its own: what it writes there is not the parse that the orchestrator goes by.
    place = str(project.target_dir() / "typed")
    os.environ |= {"DBT_TARGET_PATH": place, "DBT_LOG_PATH": place}
    os.chdir(project.project_dir())
    project.become(["dbt", *sys.argv[1:]], project.variables_without_secrets())
