"""graft computes what AdapterHub's `adapters` 1.3.0 computed, on tensors and outputs it left in the folder beside this.

`adapters` needs another transformers, so its half ran in an environment of its own: benchmarks/agreement/adapterhub.py.
"""

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parent / "adapterhub"
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "agreement" / "adapterhub.py"
METHODS = {"double_seq_bn", "seq_bn", "par_bn", "scaled_par_bn", "prefix_tuning", "prefix_tuning_flat", "mam", "ia3"}


def test_roberta_with_every_method_the_two_share() -> None:
    spec = importlib.util.spec_from_file_location("adapterhub", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = {row["method"]: row for row in script.compare(FOLDER, ["roberta-tiny"])}
    assert set(rows) == METHODS | {"none"}
    for name, row in rows.items():
        assert row["hidden"] <= 1e-5 and row["logits"] <= 1e-5, (name, row)
        assert (row["effect"] > 0.1) == (name != "none"), (name, row)
