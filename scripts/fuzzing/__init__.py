"""What `scripts/fuzz` asks: a hostile corpus, and what schemathesis makes of the document."""

import harness as harness
