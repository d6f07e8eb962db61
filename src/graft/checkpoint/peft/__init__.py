"""Hugging Face PEFT's format: knowledge of its files alone, without PEFT.

What PEFT knows by another name or layout is mapped where the function is exactly the same, and refused where it is not:

    LoRA, DoRA      a share of a fused projection is written as a block of one pair on the whole projection
    IA3             vectors by the module they scale; PEFT's own choices of modules are read as site expressions
    LoHa, LoKr      a Kronecker factor that does not divide is lowered: LoKr(variant="hf")
    OFT             the series by default: OFT(variant="neumann"); the exact rotation has -Q for Q
    VeRA            the frozen pair is in the file, or drawn from the same seed
    FourierFT       a seed gives the places of the entries
    HRA, LN-tuning  the same
    prompt tuning   rows for a decoder, which PEFT allocates and never uses, are dropped
    prefix tuning   every layer's keys and values in one row per virtual token; computed prefixes are stored computed
    task heads      what PEFT calls modules_to_save
"""

from graft.checkpoint.peft.reading import load
from graft.checkpoint.peft.writing import export, write

__all__ = ["export", "load", "write"]
