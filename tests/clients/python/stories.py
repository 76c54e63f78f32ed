"""Stories of the official `openai` Python client against a running gateway.

Reads OPENAI_BASE_URL and OPENAI_API_KEY, as the client itself does, RIALTO_CHAT_MODEL, the model to talk to, and
RIALTO_EMBEDDING_MODEL, the model that makes vectors. Each story is a function; a failed assertion names the story and
the others still run. The last line counts them. Names of stories may be given to run only those.
"""

import sys

import basics
import batches
import schemas
import tools
import vectors
from telling import tell

STORIES = [*basics.STORIES, *tools.STORIES, *schemas.STORIES, *vectors.STORIES, *batches.STORIES]

if __name__ == "__main__":
    sys.exit(tell("python", STORIES))
