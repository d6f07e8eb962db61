"""Which licences let a package's text be trained on and passed on: read from the package's own metadata."""

import re
from collections.abc import Mapping
from typing import Any

# SPDX identifiers; an expression is permissive when it can be satisfied with these alone.
PERMISSIVE = frozenset(
    """MIT MIT-0 MIT-CMU HPND ISC 0BSD BSD BSD-2-Clause BSD-3-Clause BSD-4-Clause Apache-1.1 Apache-2.0 PSF-2.0
    Python-2.0 CNRI-Python Unlicense CC0-1.0 Zlib BSL-1.0 NCSA Unicode-3.0 Unicode-DFS-2016""".lower().split()
)
EXCEPTIONS = frozenset({"llvm-exception"})

# Classifiers and free-text `License` fields, as packages write them. Nothing here matches a copyleft licence.
_NAMES = (
    (re.compile(r"\bapache\b|\basl\s*2|^apl?ache", re.I), "Apache-2.0"),
    (re.compile(r"\bmit(?!re)\b(?!.*\bbut\b)", re.I), "MIT"),
    (re.compile(r"\bbsd\b", re.I), "BSD"),
    (re.compile(r"\bisc\b", re.I), "ISC"),
    (re.compile(r"\bpsf(l|-2\.0)?\b|python software foundation", re.I), "PSF-2.0"),
    (re.compile(r"\bunlicense\b|public domain", re.I), "Unlicense"),
    (re.compile(r"\bzlib\b", re.I), "Zlib"),
)
_COPYLEFT = re.compile(
    r"gpl|mozilla|\bmpl\b|affero|eclipse|\bepl\b|cddl|eupl|share.?alike|non.?commercial|proprietary|\bzpl\b", re.I
)


def permissive(fields: Mapping[str, Any]) -> str | None:
    """The licence of a distribution when it is permissive, else None. fields: its metadata as `PackageMetadata.json`.

    The SPDX `license_expression` decides where there is one; then the classifiers together with the first line of
    `license`, neither of which may name a copyleft licence.
    """
    if expression := fields.get("license_expression"):
        return str(expression) if _satisfiable(expression) else None
    classifiers = [c.split("::")[-1].strip() for c in fields.get("classifier", []) if c.startswith("License ::")]
    classifiers = [name for name in classifiers if name not in {"OSI Approved", "DFSG approved"}]
    line = (fields.get("license") or "").strip().split("\n")[0][:120]
    if any(_COPYLEFT.search(name) for name in classifiers):
        return None
    if line and _satisfiable(line):
        return line
    if _COPYLEFT.search(line):
        return None
    for names in (classifiers, [line]):
        found = [label for name in names for pattern, label in _NAMES if pattern.search(name)]
        if found and len(found) >= len(names):
            return " AND ".join(dict.fromkeys(found))
    return None


def _satisfiable(expression: str) -> bool:
    """Whether an SPDX expression is met by permissive licences (OR: one side, AND: all, WITH: known exceptions)."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.lower())

    def either(position: int) -> tuple[bool, int]:
        good, position = both(position)
        while position < len(tokens) and tokens[position] == "or":
            other, position = both(position + 1)
            good = good or other
        return good, position

    def both(position: int) -> tuple[bool, int]:
        good, position = one(position)
        while position < len(tokens) and tokens[position] == "and":
            other, position = one(position + 1)
            good = good and other
        return good, position

    def one(position: int) -> tuple[bool, int]:
        if tokens[position] == "(":
            good, position = either(position + 1)
            if tokens[position] != ")":
                raise IndexError
            return good, position + 1
        good = tokens[position] in PERMISSIVE
        position += 1
        if position + 1 < len(tokens) and tokens[position] == "with":
            good = good and tokens[position + 1] in EXCEPTIONS
            position += 2
        return good, position

    try:
        good, end = either(0)
    except IndexError:  # it breaks off, or a parenthesis is missing: no expression
        return False
    return good and end == len(tokens)
