"""Given to a Python where an orchestrator runs dbt: one plain dbt command, its words as arguments.

The last line that is printed are the seconds.
"""

import os
import subprocess
import sys
import tempfile
import time

target = os.path.join(tempfile.gettempdir(), "switchyard-bench-target")
options = ["--project-dir", os.environ["DBT_PROJECT_DIR"], "--target-path", target, "--log-path", target, "--log-level-file", "none"]
began = time.perf_counter()
done = subprocess.run(["dbt", *sys.argv[1:], *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
seconds = time.perf_counter() - began
if done.returncode:
    sys.exit(f"dbt ended with {done.returncode}\n{done.stdout[-3000:]}")
print(seconds)
