# SPDX-License-Identifier: Apache-2.0
"""The command ``asap2``: finds the verb's module, and turns every failure into one sentence and an exit status."""

from __future__ import annotations

import signal
import sys

_RAISES = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _RAISES:  # until all is imported, Ctrl-C ends the program as others, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from asap2.errors import Asap2Error  # noqa: E402
from asap2.output import say, tolerate  # noqa: E402

if _RAISES:
    signal.signal(signal.SIGINT, signal.default_int_handler)

VERBS = ("demo", "lab", "exec", "shell", "bench", "host", "openstack")
"""Each is a module of this package with an attribute ``command``, imported when it is asked for."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line *arguments* (the process's own when None); the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    tolerate()
    try:
        if len(words) > 2 and words[0] == "exec" and not words[1].startswith("-"):
            from asap2.cli.exec import execute  # without typer, which takes longer to import than all else

            execute(words[1], words[2:])
        from asap2.cli.verbs import run

        return run(words, VERBS)
    except Asap2Error as error:
        say(f"asap2: {error}", file=sys.stderr)
        return error.status
    except PermissionError as error:
        say(f"asap2: this needs root ({error.filename or 'an operation'}: {error.strerror})", file=sys.stderr)
        return 1
    except OSError as error:
        say(f"asap2: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("asap2: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
