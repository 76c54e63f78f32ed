"""Stories of the official `openai` Python client against a running gateway.

Reads OPENAI_BASE_URL and OPENAI_API_KEY, as the client itself does, RIALTO_CHAT_MODEL, the model to talk to, and
RIALTO_EMBEDDING_MODEL, the model that makes vectors. Each story is a function; a failed assertion names the story and
the others still run. The last line counts them. Names of stories may be given to run only those.
"""

import sys
import traceback

import basics
import batches
import schemas
import tools
import vectors

STORIES = [*basics.STORIES, *tools.STORIES, *schemas.STORIES, *vectors.STORIES, *batches.STORIES]


def main():
    failed = 0
    wanted = [story for story in STORIES if story.__name__ in sys.argv[1:]] if sys.argv[1:] else STORIES
    for story in wanted:
        try:
            story()
            print(f"ok      python: {story.__name__}")
        except Exception:  # Whatever a story dies of is its failure, not the others'.
            failed += 1
            print(f"FAILED  python: {story.__name__}")
            traceback.print_exc(limit=3, file=sys.stdout)
    print(f"python: {len(wanted) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
