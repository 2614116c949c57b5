"""Run by a Python where an orchestrator runs dbt: one plain dbt command, with its words as arguments.

The last line of the output has its seconds and its seconds of CPU time. It has its own target folder, which is kept, so that the
project is already parsed from the second time on.
"""

import os
import subprocess
import sys
import time

from rundbt import project_files

project_files.adopt_baked()  # in a container where nothing has run yet
target = os.path.join(os.environ["SWITCHYARD_TARGET_PATH"], "bench")
options = ["--project-dir", os.environ["DBT_PROJECT_DIR"], "--target-path", target, "--log-path", target, "--log-level-file", "none"]
began = time.perf_counter()
done = subprocess.run(["dbt", *sys.argv[1:], *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
seconds = time.perf_counter() - began
if done.returncode:
    sys.exit(f"dbt ended with {done.returncode}\n{done.stdout[-3000:]}")
used = os.times()
print(seconds, used.children_user + used.children_system)
