"""A command of a page as lists of words, one for each program that it starts."""

from __future__ import annotations

import re
import shlex

_ENDS = {";", "&&", "||", "|", "&", "(", ")", ";;", "<(", "$("}
_REDIRECTIONS = {"<", ">", ">>", ">&", "2>", "&>"}
_SKIPPED = {"do", "then", "else", "{", "}", "done", "fi", "!"}
_ASSIGNMENT = re.compile(r"^\w+=")


def programs(text: str) -> list[list[str]]:
    """The words of every simple command in ``text``; what a page leaves open (``…``, ``[``, ``]``) is taken out.

    ``png|webp`` inside of brackets becomes ``png``.
    """
    text = re.sub(
        r"(?<!\S)\[([^\]\s][^\]]*)\]", lambda found: re.sub(r"\|\S+", "", found[1]), text.replace("\\\n", " ")
    )
    lexer = shlex.shlex(text.replace("\n", " ; "), posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if word in _ENDS:
            found.append([])
        elif word in _REDIRECTIONS:
            next(words, None)
        else:
            found[-1].append(word)
    return [stripped for command in found if (stripped := _strip(command))]


def _strip(words: list[str]) -> list[str]:
    """Without loop words and leading assignments; nothing of the head of a loop."""
    while words and (words[0] in _SKIPPED or _ASSIGNMENT.match(words[0])):
        words = words[1:]
    if words[:1] in (["for"], ["if"], ["while"]):
        return []
    # After an option … stands for its value, elsewhere for more of the same.
    return [word for word, before in zip(words, ["", *words], strict=False) if word != "…" or before.startswith("--")]
