"""Does graft compute what AdapterHub's `adapters` computes, given the same tensors?

`adapters` needs another transformers than graft, so this is two processes that meet in a folder of safetensors:

    python benchmarks/agreement/adapterhub.py --peer PYTHON [--folder FOLDER]

PYTHON is the interpreter of an environment with `adapters`; see the README beside this file. The peer builds models
from configurations with random weights, gives each an adapter with random tensors, and writes weights, tensors and
outputs. graft reads them and compares outputs. Exits 1 when any differ by more than 1e-5.
What the peer wrote for the first model is kept in tests/agreement/adapterhub, where the test suite reads it.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

BOUND = 1e-5
SMALL = {"vocab_size": 96, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
LLAMA = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 48, "max_position_embeddings": 64}  # fmt: skip
ROBERTA = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24,
           "max_position_embeddings": 64, "type_vocab_size": 1}  # fmt: skip
BASE = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}

# name: (class, configuration, deviation of weights, deviation of adapter tensors)
MODELS: dict[str, tuple[str, dict[str, Any], float, float]] = {
    "roberta-tiny": ("RobertaForSequenceClassification", {**SMALL, **ROBERTA}, 0.25, 0.2),
    "roberta-base": ("RobertaForSequenceClassification", BASE, 0.02, 0.02),
    "gpt2-tiny": ("GPT2LMHeadModel", {**SMALL, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}, 0.25, 0.2),
    "llama-tiny": ("LlamaForCausalLM", {**SMALL, **LLAMA}, 0.25, 0.2),
}
LAYER = re.compile(r"\.(?:layer|layers|h)\.(\d+)\.")
BOTTLENECKS = ("double_seq_bn", "seq_bn", "par_bn", "scaled_par_bn")
# Behind a prefix graft and Hugging Face PEFT move real tokens' positions; `adapters` does not, and is told to here.
PREFIXES = ("prefix_tuning", "prefix_tuning_flat", "mam")
TOKENS = 30
CASES = [(model, method) for model in MODELS for method in BOTTLENECKS]
CASES += [(model, method) for model in ("roberta-tiny", "roberta-base") for method in (*PREFIXES, "ia3")]


def build(name: str) -> nn.Module:
    """The model of that name, as whatever transformers is installed here makes it, without dropout."""
    import transformers

    architecture, settings, _, _ = MODELS[name]
    kind = getattr(transformers, architecture)
    config = kind.config_class(**settings)
    for key, value in vars(config).items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return kind(config).eval()


def inputs() -> dict[str, Tensor]:
    """Two rows, the second padded on the right."""
    ids = torch.randint(5, 96, (2, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[1, 7:], mask[1, 7:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def outputs(model: nn.Module, moved: int = 0) -> dict[str, Tensor]:
    """Logits and last hidden states, at real tokens; RoBERTa's positions moved by so many."""
    batch = inputs()
    real = batch["attention_mask"].bool()
    if moved:
        places = torch.arange(real.shape[1]) + model.config.pad_token_id + 1 + moved
        batch["position_ids"] = places.expand(len(real), -1)
    with torch.no_grad():
        out = model(**batch, output_hidden_states=True)
    logits = out.logits if out.logits.dim() == 2 else out.logits[real]
    return {"logits": logits.contiguous(), "hidden": out.hidden_states[-1][real].contiguous()}


# The peer's side.


def configuration(name: str, method: str) -> Any:
    """The peer's configuration: its defaults, but widths that suit a tiny model."""
    import adapters

    if "tiny" in name and method in BOTTLENECKS:
        return f"{method}[reduction_factor=4]"
    if "tiny" in name and method in ("prefix_tuning", "mam"):
        prefix = adapters.PrefixTuningConfig(bottleneck_size=8)
        return prefix if method == "prefix_tuning" else adapters.MAMConfig(prefix, adapters.ParBnConfig())
    return method


def write(folder: Path) -> None:
    """Build every model and adapter with `adapters`, and save tensors and outputs."""
    import adapters
    import transformers

    for name, (_, _, deviation, moved) in MODELS.items():
        model = build(name)
        draws = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=draws)
                parameter.copy_(deviation * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
        save_file({key: value.clone() for key, value in model.named_parameters()}, folder / f"{name}.safetensors")
        adapters.init(model)
        save_file(outputs(model), folder / f"{name}.base.safetensors")
        for method in [method for model_name, method in CASES if model_name == name]:
            before = set(dict(model.named_parameters()))
            model.add_adapter("a", config=configuration(name, method))
            model.set_active_adapters("a")
            model.eval()
            own = {key: value for key, value in model.named_parameters() if key not in before}
            with torch.no_grad():
                for value in own.values():
                    value.add_(moved * torch.randn(value.shape, generator=draws))
            saved = {f"adapter.{key}": value.detach().clone() for key, value in own.items()}
            out = outputs(model, TOKENS if method in PREFIXES else 0)
            save_file({**saved, **out}, folder / f"{name}.{method}.safetensors")
            model.delete_adapter("a")
    versions = {"adapters": adapters.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    (folder / "peer.json").write_text(json.dumps(versions))


# graft's side.


def method_of(name: str, tensors: dict[str, Tensor]) -> Any:
    """graft's method with the sizes of the peer's tensors."""
    from graft.methods.houlsby import Houlsby
    from graft.methods.ia3 import IA3
    from graft.methods.mam import MAM
    from graft.methods.parallel_adapter import ParallelAdapter
    from graft.methods.pfeiffer import Pfeiffer
    from graft.methods.prefix_tuning import PrefixTuning

    def rows(end: str) -> int:
        return next((len(value) for key, value in tensors.items() if key.endswith(end)), 0)

    width, hidden = rows("adapter_down.0.weight"), rows("control_trans.0.weight")
    if name == "double_seq_bn":
        return Houlsby(width, activation="silu", train_layernorm=False)
    if name == "seq_bn":
        return Pfeiffer(width)
    if name in ("par_bn", "scaled_par_bn"):
        return ParallelAdapter(width, scale=4.0, learned_scale=name == "scaled_par_bn")
    if name == "prefix_tuning":
        return PrefixTuning(TOKENS, reparameterize=True, hidden=hidden)
    if name == "prefix_tuning_flat":
        return PrefixTuning(TOKENS)
    if name == "mam":
        return MAM(tokens=TOKENS, hidden=hidden, bottleneck=width, scale=4.0)
    # The paper scales what enters the second projection, `adapters` what leaves the first, before the activation.
    return IA3(sites="k v up")


def theirs(placed: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The peer's tensors for one of graft's parts, under graft's names."""
    site, kind = placed.site, type(placed.part).__name__
    if kind == "Network":
        (start,) = {key.partition("wte.")[0] for key in tensors if "wte." in key}
        names = {"E": "wte.weight", "W1": "control_trans.0.weight", "b1": "control_trans.0.bias",
                 "W2": "control_trans.2.weight", "b2": "control_trans.2.bias"}  # fmt: skip
        return {ours: tensors[start + name] for ours, name in names.items()}
    if kind == "Borrowed":
        return {}
    if kind == "Prefix":
        (flat,) = (value for key, value in tensors.items() if key.endswith("control_trans"))
        heads = placed.part.keys.shape
        whole = flat.view(heads[0], -1, *heads[1:])  # tokens, (layer, key or value), heads, width
        return {"keys": whole[:, 2 * site.layer], "values": whole[:, 2 * site.layer + 1]}
    own = {key: value for key, value in tensors.items() if LAYER.search(key).group(1) == str(site.layer)}  # type: ignore[union-attr]
    if kind.startswith("Scale"):
        word = {"k": ".key.", "v": ".value.", "up": ".intermediate."}[site.role]
        (vector,) = (value for key, value in own.items() if word in key and "lora_B" in key)
        return {"l": vector.flatten()}
    attention = site.role == "attention"
    own = {key: value for key, value in own.items() if (("attention" in key) == attention)}
    names = {"down": "adapter_down.0.weight", "down_bias": "adapter_down.0.bias", "up": "adapter_up.weight",
             "up_bias": "adapter_up.bias", "scale": "scaling"}  # fmt: skip
    return {ours: value for ours, name in names.items() for key, value in own.items() if key.endswith(name)}


def compare(folder: Path, names: Sequence[str] = tuple(MODELS)) -> Iterator[dict[str, Any]]:
    """One row for each model and method: the largest differences, and the largest effect of the adapter."""
    from graft.attach import attach, detach

    for name in names:
        model = build(name)
        missing, extra = model.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=False)
        assert not extra and all(key.endswith(("position_ids", "lm_head.weight")) for key in missing), (missing, extra)
        base = load_file(folder / f"{name}.base.safetensors")
        row = {"model": name, "method": "none", "effect": 0.0}
        yield {**row, **{key: gap(value, base[key]) for key, value in outputs(model).items()}}
        for method in [method for model_name, method in CASES if model_name == name]:
            saved = load_file(folder / f"{name}.{method}.safetensors")
            tensors = {key: value for key, value in saved.items() if key.startswith("adapter.")}
            adapter = attach(model, method_of(method, tensors), head=False)
            used = 0
            for placed in adapter.placed:
                values = theirs(placed, tensors)
                placed.part.load_state_dict(values)
                used += sum(value.numel() for value in values.values())
            total = sum(value.numel() for value in tensors.values())
            assert used == total == adapter.counts.trainable, (name, method, used, total)
            ours = outputs(model)
            gaps = {key: gap(value, saved[key]) for key, value in ours.items()}
            yield {"model": name, "method": method, "effect": gap(saved["hidden"], base["hidden"]), **gaps}
            detach(model)


def gap(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference."""
    return float((a - b).abs().max())


def main() -> int:
    parser = argparse.ArgumentParser(description="graft against AdapterHub's adapters")
    parser.add_argument("--peer", help="the interpreter of an environment with `adapters`")
    parser.add_argument("--folder", type=Path, help="where the two processes meet; a temporary folder by default")
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.folder)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.peer:
            subprocess.run([options.peer, __file__, "--write", "--folder", str(folder)], check=True)
        import transformers

        print(f"peer {(folder / 'peer.json').read_text()}; here transformers {transformers.__version__}")
        rows = list(compare(folder))
    print("| model | method | effect on hidden states | hidden states | logits |\n|---|---|---:|---:|---:|")
    for row in rows:
        print(f"| {row['model']} | {row['method']} | {row['effect']:.2g} | {row['hidden']:.1e} | {row['logits']:.1e} |")
    return int(not all(row["hidden"] <= BOUND and row["logits"] <= BOUND for row in rows))


if __name__ == "__main__":
    sys.exit(main())
