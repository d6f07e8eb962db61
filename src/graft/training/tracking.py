"""Trackers that the loss is reported to: those transformers knows, checked before anything is loaded."""

import difflib
import sys
from collections.abc import Sequence

from graft.errors import BadInput

PACKAGES = {"azure_ml": "azureml-core", "comet_ml": "comet_ml", "dagshub": "dagshub", "flyte": "flytekit"}


def check_trackers(names: Sequence[str]) -> None:
    """Raise BadInput, with the nearest name or the command that installs it, for a tracker that cannot be used."""
    if not names:
        return
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    known, here = list(INTEGRATION_TO_CALLBACK), get_available_reporting_integrations()
    wrong = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            wrong.append(f"no tracker is called {name!r}; {hint}")
        elif name not in here:
            package = "'graft[track]'" if name == "tensorboard" else PACKAGES.get(name, name)
            wrong.append(f"{name} is not installed: {sys.executable} -m pip install {package}")
    if wrong:
        raise BadInput(f"report_to: {'; '.join(wrong)}.".replace("?.", "?"))
