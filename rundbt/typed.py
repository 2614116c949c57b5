"""``python -m rundbt.typed ARGS``: become the dbt command ARGS, next to the orchestrator, apart from its files and without its secrets."""

from __future__ import annotations

import os
import sys

from rundbt import project_files

if __name__ == "__main__":
    project_files.share_files()
    try:
        project_files.adopt_baked()
    except project_files.ParseFailed as error:
        sys.exit(str(error))
    # A separate folder, so that this command does not overwrite the parse that the orchestrator uses.
    place = str(project_files.target_dir() / "typed")
    os.environ |= {"DBT_TARGET_PATH": place, "DBT_LOG_PATH": place}
    os.chdir(project_files.project_dir())
    project_files.exec_command(["dbt", *sys.argv[1:]], project_files.variables_without_secrets())
