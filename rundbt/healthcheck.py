"""``python -m rundbt.healthcheck URL[#component] [...]``: exit 0 when everything is healthy, otherwise 1 with the reason.

A URL is healthy when it answers 200 and, with a ``#component``, that part of the JSON answer has the status "healthy".
"""

import sys
from urllib.parse import urldefrag

from rundbt import api

if __name__ == "__main__":
    try:
        for argument in sys.argv[1:]:
            url, component = urldefrag(argument)
            answer = api.request("GET", url, timeout=5)
            if component and answer[component]["status"] != "healthy":
                sys.exit(f"{component} is {answer[component]['status']}")
    except (api.ApiError, ValueError) as error:
        sys.exit(str(error))
