# SPDX-License-Identifier: Apache-2.0
"""The command ``asap2``: finds the verb's module, and turns every failure into one sentence and an exit status."""

from __future__ import annotations

import os
import signal
import sys

_RAISES = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _RAISES:  # until all is imported, Ctrl-C ends the program as others, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from asap2 import answers  # noqa: E402
from asap2.errors import Asap2Error, InterruptError, UsageError  # noqa: E402
from asap2.lab.layout import ROOT_VARIABLE, layout  # noqa: E402
from asap2.output import say, tolerate  # noqa: E402

if _RAISES:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ANSWERS = ("lab", "top", "host", "openstack", "trace")
"""Those whose option --json has them print an answer for programs."""
LAB = "--lab"
NOBODY_READS = 128 + signal.SIGPIPE
"""Exit status when the reader of our output has gone, as of a program that SIGPIPE ended in a shell."""
VERBS = ("demo", "lab", "exec", "shell", "top", "view", "trace", "capture", "bench", "host", "openstack")
"""Each is a module of this package with an attribute ``command``, imported when it is asked for."""


def main(arguments: list[str] | None = None, *, held: bool = False) -> int:
    """Run the command line *arguments* (the process's own when None); the exit status. *held*: who started this program
    has blocked SIGINT, so that it could not interrupt Python's own start."""
    words = sys.argv[1:] if arguments is None else arguments
    tolerate()
    answers.begin()
    try:
        if held:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        words = _choose_lab(words)
        if len(words) > 2 and words[0] == "exec" and not words[1].startswith("-"):
            from asap2.cli.exec import execute  # without typer, which takes longer to import than all else

            execute(words[1], words[2:])
        from asap2.cli.verbs import run

        return run(words, VERBS)
    except Asap2Error as error:
        return _fail(words, str(error), error.status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would try once more at its end, and complain
        return NOBODY_READS
    except PermissionError as error:
        return _fail(words, f"this needs root ({error.filename or 'an operation'}: {error.strerror})", 1)
    except OSError as error:
        return _fail(words, f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 1)
    except KeyboardInterrupt:
        return InterruptError.status


def _fail(words: list[str], text: str, status: int) -> int:
    """Tell of a failure in one sentence, and also as JSON where *words* ask for that; *status*."""
    if text:
        say(f"asap2: {text}", file=sys.stderr)
        mine = words[: words.index("--")] if "--" in words else words
        if "--json" in mine and words[0] in ANSWERS:
            answers.fail(text, status)
    return status


def _choose_lab(words: list[str]) -> list[str]:
    """*words* without the option that names the lab of the command. It may stand before the verb or among the words of
    the verb itself, but for exec not after the name of the node or guest: what follows there is another program's."""
    end = words.index("--") if "--" in words else len(words)
    if "exec" in words[:3]:
        at = words.index("exec") + 1
        end = min(end, at + 2 if words[at : at + 1] == [LAB] else at + 1)
    for at, word in enumerate(words[:end]):
        option, equals, name = word.partition("=")
        if option == LAB:
            if not equals:
                name = words[at + 1] if at + 1 < len(words) else ""
            if not name:
                raise UsageError("--lab needs a NAME; `asap2 lab ls` lists labs")
            os.environ[ROOT_VARIABLE] = name
            layout()
            return [*words[:at], *words[at + (1 if equals else 2) :]]
    return words


if __name__ == "__main__":
    sys.exit(main())
