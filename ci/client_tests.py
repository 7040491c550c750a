"""What the tests by Python packages have in common: ci/openai_client.py, ci/ollama_client.py, ci/litellm_client.py."""

import os
import sys
import traceback

# The server's key.
KEY = os.environ.get("API_KEY", "none")


class Failed(Exception):
    """Something that must hold does not."""


def expect(holds, what):
    if not holds:
        raise Failed(what)


def base_url(doc):
    """The server's address: the one argument."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(doc.strip(), file=sys.stderr)
        sys.exit(2)
    return sys.argv[1].rstrip("/")


def run(title, calls):
    """Runs functions with their arguments, says how each went, and ends the program."""
    failed = 0
    for test, *arguments in calls:
        name = test.__name__.replace("_", " ")
        try:
            test(*arguments)
            print(f"ok      {name}")
        except Exception as error:  # noqa: BLE001 (a test that fails in any way has failed)
            failed += 1
            print(f"FAILED  {name}: {error}")
            if not isinstance(error, Failed):
                traceback.print_exc()
    print(f"{title}: {len(calls) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
