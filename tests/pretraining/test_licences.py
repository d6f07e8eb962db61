"""Only permissive licences pass, whichever way a package states its licence."""

import pytest

from graft.pretraining.licences import permissive


def classifiers(*names: str) -> list[str]:
    return ["Programming Language :: Python", *(f"License :: OSI Approved :: {name}" for name in names)]


@pytest.mark.parametrize(
    "fields",
    [
        {"license_expression": "MIT"},
        {"license_expression": "Apache-2.0 OR GPL-3.0-or-later"},
        {"license_expression": "(MIT AND BSD-3-Clause) OR GPL-2.0-only"},
        {"license_expression": "Apache-2.0 WITH LLVM-exception AND 0BSD"},
        {"license": "MIT OR Apache-2.0"},
        {"license": "BSD 3-Clause License"},
        {"license": "Apache License, Version 2.0"},
        {"license": "Copyright (c) 2001 Somebody\nAll rights reserved", "classifier": classifiers("BSD License")},
        {"classifier": classifiers("Python Software Foundation License")},
        {"classifier": ["License :: OSI Approved", *classifiers("MIT License")]},
    ],
)
def test_permissive(fields: dict) -> None:
    assert permissive(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"license": "UNKNOWN"},
        {"license_expression": "GPL-3.0-only"},
        {"license_expression": "MIT AND LGPL-2.1-or-later"},
        {"license_expression": "MPL-2.0 AND MIT"},
        {"license_expression": "(MIT OR Apache-2.0) AND GPL-2.0-only"},
        {"license_expression": "GPL-2.0-only WITH Classpath-exception-2.0"},
        {"license_expression": "MIT OR"},
        {"license_expression": "LicenseRef-Proprietary"},
        {"license": "LGPL"},
        {"license": "MIT", "classifier": classifiers("GNU General Public License v3 (GPLv3)")},
        {"classifier": classifiers("MIT License", "Mozilla Public License 2.0 (MPL 2.0)")},
        {"license": "All rights reserved by Summit"},
        {"license": "public domain, Python, 2-Clause BSD, GPL 3"},
    ],
)
def test_not_permissive(fields: dict) -> None:
    assert permissive(fields) is None
