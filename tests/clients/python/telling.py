"""Runs stories and says how they went."""

import sys
import traceback


def tell(teller, stories):
    """Runs those named on the command line, or all; a failed one is named and the others still run. The last line counts."""
    failed = 0
    wanted = [story for story in stories if story.__name__ in sys.argv[1:]] if sys.argv[1:] else stories
    for story in wanted:
        try:
            story()
            print(f"ok      {teller}: {story.__name__}", flush=True)
        except Exception:  # Whatever a story dies of is its failure, not the others'.
            failed += 1
            print(f"FAILED  {teller}: {story.__name__}")
            traceback.print_exc(limit=3, file=sys.stdout)
    print(f"{teller}: {len(wanted) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0
