# SPDX-License-Identifier: Apache-2.0
"""Failures that one sentence explains: the command line prints the sentence, with no traceback, and exits."""

from __future__ import annotations


class Asap2Error(Exception):
    """Something did not work; the text is one sentence that says what is wrong and what to do. Exit status 1."""

    status = 1


class UsageError(Asap2Error):
    """What the user asked for does not exist or makes no sense. Exit status 2."""

    status = 2


class InterruptError(Asap2Error):
    """The user pressed Ctrl-C. Exit status 130, as of a program that SIGINT ended in a shell; nothing is said without a
    text, which tells what to do next."""

    status = 130
