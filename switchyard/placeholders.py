"""How a compose file, and so a ``native.yaml``, refers to a setting."""

from __future__ import annotations

import re

# ${KEY}, ${KEY:-default}, ${KEY:+other}, ${KEY:?message} or ${KEY?message}; $$ is a dollar sign.
# Groups: that sign, the key, what follows it, the rest.
SETTING = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:[-?+]|\?)([^}]*))?\})")
