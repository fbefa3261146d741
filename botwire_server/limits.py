"""What each part of a request may hold: numbers that no honest user meets.

`--max-body-bytes` says how much is taken in all; this says how much of it one part may be, so that
the work for a part stays small whatever that is set to. The fields take their bounds from here, and
`/openapi.json` tells them. Texts are counted in characters, JSON in bytes as it is stored.
"""

from __future__ import annotations

# Names.
NAMESPACE = 256
KEY = 512
ID = 256  # an agent, a session
COLLECTION = 128
TENANT = 128
LABEL = 200
PATTERN = 256  # of a key's namespaces
STARS = 4  # in it
PUBLIC_ID = 64  # of a key, of a memory: what is longer is none of ours
WORD = 64  # the name of a tier
DURATION = 7
TIME = 64
CURSOR = 40
ETAGS = 4_096  # If-Match and If-None-Match

# Texts.
TEXT = 1_048_576  # of a memory or an episode
QUERY = 100_000
EMBEDDED_QUERY = 8_000  # a longer one is a document, and its beginning says what it is about

# Lists.
ITEMS = 1_000
SCOPES = 16
DIMENSION = 8_192

# JSON.
DEPTH = 64
CONTAINERS = 250_000  # lists and objects in a body: reading half a million stops everybody
VALUE = 67_108_864
STATE = 409_600
METADATA = 65_536
FILTER = 65_536
# Lists and objects inside lists of a filter: each is compared with every element of a list.
FILTER_NESTED = 16
