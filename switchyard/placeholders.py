"""How compose files and ``native.yaml`` refer to settings."""

from __future__ import annotations

import re

# ${KEY}, ${KEY:-default}, ${KEY:+other}, ${KEY:?message} or ${KEY?message}; $$ is a dollar sign.
# Groups: that sign, the key, the operator, the rest.
SETTING = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:[-?+]|\?)([^}]*))?\})")
