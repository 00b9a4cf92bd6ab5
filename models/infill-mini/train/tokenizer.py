"""The reduced CLIP tokenizer: the bytes, and of CLIP's own merges those that the captions' words need.

A word of the captions is split exactly as the full tokenizer splits it (every merge on the way is kept, in CLIP's
order); any other word falls back to smaller pieces, in the end to its bytes. Only the numbers of the tokens differ.
"""

import argparse
import json
import os

import words

START, END = "<|startoftext|>", "<|endoftext|>"


def byte_characters() -> list[str]:
    """The printable stand-ins of the 256 bytes, in the order in which CLIP numbers them."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in set(visible)]
    return [chr(b) for b in visible] + [chr(256 + i) for i in range(len(hidden))]


def merges_of(word: str, ranks: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """The merges that byte-pair encoding applies to `word`."""
    parts, used = [*word[:-1], word[-1] + "</w>"], set()
    while len(parts) > 1:
        pairs = [p for p in zip(parts, parts[1:]) if p in ranks]
        if not pairs:
            break
        best = min(pairs, key=ranks.__getitem__)
        used.add(best)
        joined, i = [], 0
        while i < len(parts):
            if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                joined.append(parts[i] + parts[i + 1])
                i += 2
            else:
                joined.append(parts[i])
                i += 1
        parts = joined
    return used


def build(merges_file: str) -> tuple[dict[str, int], list[str]]:
    """The vocabulary and the merges, in CLIP's order, from the full `merges.txt`."""
    with open(merges_file, encoding="utf-8") as file:
        lines = [line for line in file.read().split("\n")[1:] if line]
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
    used = set().union(*(merges_of(word, ranks) for word in words.vocabulary()))
    merges = [lines[rank] for rank in sorted(ranks[pair] for pair in used)]
    characters = byte_characters()
    tokens = characters + [c + "</w>" for c in characters] + [m.replace(" ", "") for m in merges] + [START, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def write(folder: str, merges_file: str, pad: str) -> None:
    """Writes one tokenizer folder."""
    vocabulary, merges = build(merges_file)
    os.makedirs(folder, exist_ok=True)
    special = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    added = lambda content: {"__type": "AddedToken", "content": content, **special}  # noqa: E731
    config = {
        "add_prefix_space": False, "bos_token": added(START), "do_lower_case": True, "eos_token": added(END),
        "errors": "replace", "model_max_length": 77, "pad_token": pad, "tokenizer_class": "CLIPTokenizer",
        "unk_token": added(END),
    }  # fmt: skip
    plain = lambda content: {"content": content, **special}  # noqa: E731
    names = {"bos_token": plain(START), "eos_token": plain(END), "pad_token": pad, "unk_token": plain(END)}
    files = {"vocab.json": vocabulary, "tokenizer_config.json": config, "special_tokens_map.json": names}
    for name, value in files.items():
        with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=None if name == "vocab.json" else 2)
            file.write("\n")
    with open(f"{folder}/merges.txt", "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "\n".join(merges) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--merges", required=True, help="merges.txt of the full CLIP tokenizer")
    parser.add_argument("--out", default="..", help="the model's folder")
    arguments = parser.parse_args()
    write(f"{arguments.out}/tokenizer", arguments.merges, END)
    write(f"{arguments.out}/tokenizer_2", arguments.merges, "!")
