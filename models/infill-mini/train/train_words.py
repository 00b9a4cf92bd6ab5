"""Trains the two text encoders alone: what they say of a caption must tell which objects it names, and how they look.

CLIP's encoders, too, know what words mean before any UNet reads them. Small heads, thrown away afterwards, name colour,
shape, style and size of each object and the kind and colours of the background, once from the pooled words and once
from the states that the UNet attends to (at the end of the caption).
"""

import argparse
import random

import torch

import backgrounds
import words
from common import Log, add_machine, cosine, descend, machine
from scenes import random_scene
from text import KINDS, load, tokenizers, words_of

LENGTH = 48  # tokens at most; the encoders are causal, so padding changes nothing before it
SLOTS = 3  # objects in a caption that are asked for
SIZES = ("small", "", "large")
QUESTIONS = [
    *[(words.COLOURS, words.SHAPES, words.STYLES, SIZES)] * SLOTS,
    (backgrounds.KINDS, words.COLOURS, words.COLOURS),
]


def example(rng: random.Random) -> tuple[str, list[int]]:
    """A caption and the answers, 0 for what it does not say and one more than the index of what it says."""
    scene = random_scene(rng, rng.choices((1, 2, 3), (9, 3, 1))[0])
    things = [] if rng.random() < 0.12 else scene.things
    say_style = rng.random() < 0.3
    answers, phrases = [], []
    for slot in range(SLOTS):
        if slot >= len(things):
            answers += [0] * 4
            continue
        thing = things[slot]
        phrase = words.object_phrase(rng, thing.colour, thing.shape, thing.radius, thing.style, say_style)
        if rng.random() < 0.15:
            phrase = words.vague(rng, phrase)
        phrases.append(phrase)
        bare = phrase.replace(",", "").split(" ")
        sizes = {synonym: SIZES.index(size) + 1 for size, group in words.SIZE_SYNONYMS.items() for synonym in group}
        answers += [
            list(words.COLOURS).index(thing.colour) + 1 if thing.colour in bare else 0,
            words.SHAPES.index(thing.shape) + 1 if thing.shape in bare else 0,
            words.STYLES.index(thing.style) + 1 if say_style else 0,
            next((sizes[word] for word in bare if word in sizes), 0),
        ]
    caption = rng.choice(words.OPENINGS) + words.join(phrases) if phrases else ""
    if rng.random() < 0.3:
        said = words.background_phrase(rng, scene.background, scene.colours)
        caption = f"{caption} on {said}" if caption else said
        template_colours = [list(words.COLOURS).index(c) + 1 if c in said.split(" ") else 0 for c in scene.colours]
        answers += [list(backgrounds.KINDS).index(scene.background) + 1, *template_colours]
    else:
        answers += [0] * 3
    return caption, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init", help="a folder to start from (this model's own will do)")
    parser.add_argument("--tokenizer", default="..")
    parser.add_argument("--out", default="work/words-to-picture")
    parser.add_argument("--vocabulary", type=int, default=808)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a, 2)
    text_1, text_2 = (model.to(device).train() for model in load(a.init, a.vocabulary))
    both = tokenizers(a.tokenizer)
    sizes = [len(kind) + 1 for group in QUESTIONS for kind in group]
    pooled_width = text_2.config.projection_dim
    context_width = text_1.config.hidden_size + text_2.config.hidden_size
    heads = torch.nn.ModuleList(torch.nn.Linear(width, sum(sizes)) for width in (pooled_width, context_width)).to(device)
    weights = [*text_1.parameters(), *text_2.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=a.rate, weight_decay=1e-2, fused=True)
    log, rng = Log("words", 50), random.Random(5)
    for step in range(a.steps):
        optimizer.param_groups[0]["lr"] = cosine(step, step / a.steps, a.rate)
        captions, answers = zip(*(example(rng) for _ in range(a.batch)))
        answers = torch.tensor(answers, device=device)
        ids = [
            torch.tensor(t(list(captions), padding="longest", max_length=LENGTH, truncation=True).input_ids, device=device)
            for t in both
        ]
        context, pooled = words_of(text_1, text_2, *ids)
        end = (ids[0] == text_1.config.eos_token_id).int().argmax(1)
        states = (pooled, context[torch.arange(a.batch, device=device), end])
        loss, right = 0.0, []
        for head, state in zip(heads, states):
            for question, scores in enumerate(head(state).split(sizes, dim=1)):
                loss = loss + torch.nn.functional.cross_entropy(scores, answers[:, question])
                said = answers[:, question] > 0
                right.append((scores.argmax(1) == answers[:, question])[said].float())
        descend(loss, weights, optimizer)
        log.add(step, a.batch, loss=loss, right=torch.cat(right).mean())
    log.plot()
    for (_, name), model in zip(KINDS, (text_1, text_2)):
        model.save_pretrained(f"{a.out}/{name}")


if __name__ == "__main__":
    main()
