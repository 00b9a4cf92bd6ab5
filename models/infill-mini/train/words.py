"""What can be drawn and what it is called: colours, shapes, styles, backgrounds, and the wording of captions."""

import random

# Canonical sRGB values; every drawing jitters them a little. They are far apart, so that a checker can name them.
COLOURS = {
    "red": (218, 38, 38),
    "orange": (242, 138, 24),
    "yellow": (248, 222, 48),
    "green": (44, 160, 66),
    "cyan": (64, 206, 222),
    "blue": (40, 84, 214),
    "purple": (132, 54, 186),
    "pink": (246, 128, 186),
    "brown": (126, 78, 42),
    "black": (26, 26, 28),
    "gray": (136, 136, 138),
    "white": (246, 246, 244),
}

SHAPES = (
    "circle", "square", "triangle", "star", "heart", "diamond",
    "cross", "ring", "moon", "arrow", "flower", "house",
)  # fmt: skip

STYLES = ("flat", "outlined", "shaded", "pencil", "neon")

# How a style is said: before the noun phrase or after it.
STYLE_WORDS = {
    "flat": ("flat {}", "{}, flat"),
    "outlined": ("outlined {}", "{} with a dark outline", "{}, outlined"),
    "shaded": ("shaded {}", "{}, shaded", "3d {}"),
    "pencil": ("{} drawn in pencil", "{}, pencil drawing", "pencil {}"),
    "neon": ("neon {}", "glowing {}", "{}, neon"),
}

SIZES = ((0.14, "small"), (0.26, ""), (1.0, "large"))
SIZE_SYNONYMS = {"small": ("small", "little", "tiny"), "large": ("large", "big")}

BACKGROUND_WORDS = {
    "plain": ("a {0} background", "plain {0}", "a plain {0} background"),
    "gradient": ("a {0} and {1} gradient", "a gradient of {0} and {1}"),
    "stripes": ("{0} and {1} stripes", "a striped {0} and {1} background"),
    "checks": ("{0} and {1} checks", "a {0} and {1} checkered background"),
    "dots": ("{0} with {1} dots", "a dotted {0} background"),
    "clouds": ("a rough {0} background", "a cloudy {0} background"),
    "landscape": ("a landscape", "hills under the sky", "a landscape with hills"),
    "sea": ("the sea", "a beach by the sea"),
}

# Words that change nothing; they teach the encoders to pass over what they don't know.
FILLERS = ("nice", "simple", "beautiful", "single", "cute", "painted", "new", "good")

OPENINGS = ("", "", "", "", "a picture of ", "a drawing of ", "an image of ")


def article(phrase: str) -> str:
    """`phrase` with its indefinite article."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def size_word(radius: float) -> str:
    """The word for an object of this radius, in units of the picture's shorter side; empty for a usual one."""
    return next(word for limit, word in SIZES if radius < limit)


def object_phrase(rng: random.Random, colour: str, shape: str, radius: float, style: str, say_style: bool) -> str:
    """A noun phrase such as "a small red star, pencil drawing"."""
    noun = f"{colour} {shape}"
    size = size_word(radius)
    if size and rng.random() < 0.4:
        noun = f"{rng.choice(SIZE_SYNONYMS[size])} {noun}"
    if rng.random() < 0.06:
        noun = f"{rng.choice(FILLERS)} {noun}"
    template = rng.choice(STYLE_WORDS[style]) if say_style else "{}"
    before, after = template.split("{}")
    noun = before + noun
    return (article(noun) if rng.random() < 0.85 else noun) + after


def background_phrase(rng: random.Random, kind: str, colours: tuple[str, str]) -> str:
    """A noun phrase for the background."""
    return rng.choice(BACKGROUND_WORDS[kind]).format(*colours)


def join(phrases: list[str]) -> str:
    """The phrases as one enumeration."""
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def vague(rng: random.Random, caption: str) -> str:
    """The caption with the first colour or the first shape left open: "a star", "a red shape", "an object"."""
    parts = caption.split(" ")
    bare = [part.strip(",") for part in parts]
    colour = next((i for i, part in enumerate(bare) if part in COLOURS), None)
    if colour is None or colour + 1 == len(parts) or bare[colour + 1] not in SHAPES:
        return caption
    drop_colour, drop_shape = rng.choice(((True, False), (False, True), (True, True)))
    if drop_shape:
        parts[colour + 1] = parts[colour + 1].replace(bare[colour + 1], rng.choice(("shape", "object")))
    if drop_colour:
        del parts[colour]
    if colour and parts[colour - 1] in ("a", "an"):
        parts[colour - 1] = article(parts[colour]).split(" ")[0]
    return " ".join(parts)


def vocabulary() -> list[str]:
    """Every word that a caption can hold, and the words a user is likely to add."""
    pieces = [*COLOURS, *SHAPES, *STYLES, *FILLERS, *OPENINGS]
    for group in (STYLE_WORDS, SIZE_SYNONYMS, BACKGROUND_WORDS):
        for templates in group.values():
            pieces += templates
    pieces += [*BACKGROUND_WORDS, "and on at in the left right top bottom center of a an one two with it is photo"]
    pieces += ["grey violet turquoise round shape object nothing empty bright dark light style painting sketch"]
    words = " ".join(pieces).replace(",", " , ").replace("{0}", " ").replace("{1}", " ").replace("{}", " ")
    return sorted(set(words.split()))
