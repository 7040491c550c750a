"""Simple stories from templates: a cast, a place, a thing, and a plot.

The plots are in `plots.txt`. In a template `[a|b|c]` is a choice, `{name}` a
variable of the story's cast, `<part>` a draw from PARTS, and what follows a `?`
at the start of a line or of a sentence may be left out.
The cast is drawn once a story, so names, pronouns and things stay the same to
the end.
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path

GIRLS = ("Lily Mia Anna Emma Lucy Rosie Ella Sara Zoe Nora Ruby Kate Amy Clara Molly Jane Daisy "
         "Alice").split()
BOYS = ("Ben Tom Max Sam Leo Jack Tim Oscar Finn Noah Peter Adam Luke Joe Dan Henry Billy "
        "Will").split()
BEASTS = {"fox": "Rusty Ginger Flame", "rabbit": "Clover Thumper Snowy", "bear": "Bruno Honey Barney",
          "mouse": "Pip Squeak Crumb", "duck": "Dilly Puddle Waddle", "frog": "Hopper Freddie Lilo",
          "cat": "Whiskers Tiger Misty", "dog": "Buddy Spot Scout", "squirrel": "Hazel Nutty Chip",
          "hedgehog": "Prickle Bramble Spike", "turtle": "Shelly Toby Slowcoach"}
CALLED = {"he": "he his him himself boy".split(), "she": "she her her herself girl".split()}
TOYS = ("ball,kite,doll,boat,drum,lantern,scarf,whistle,bell,hat,book,toy car,teddy bear,basket,"
        "umbrella,shell").split(",")
COLS = "red blue green yellow orange purple pink white brown golden silver".split()
PLACES = "park forest beach garden farm meadow river lake hill market village".split()
WISE = "owl squirrel fox rabbit robin hedgehog crow mouse deer goat".split()
FOODS = ("apples bread cake cheese soup honey berries pears biscuits pancakes nuts plums "
         "sandwiches").split()

PARTS = {
    "when": ["One [sunny|bright|warm|cold|windy|quiet|fine] [morning|afternoon|day]",
             "One day", "One day", "One [spring|summer|autumn] [morning|day]",
             "On a [Monday|Saturday|Sunday] morning", "Early one morning"],
    "love": ["{He} loved to [play|run|sing|dance] near the {place}.",
             "{He} [loved|liked] [stories about the sea|the smell of fresh bread|long walks near the "
             "{place}|to look at the stars|to draw pictures|to help {his} {par}|to eat {food}].",
             "{He} had a {cobj} and {he} took it everywhere.",
             "{His} favourite thing was a {cobj}.",
             "Every [day|morning|afternoon], {he} [played with {friend}|went to the {place}|helped "
             "{his} {par} with the [cooking|garden|washing|shopping]]."],
    "home": ["a [small|little|cosy|white|old stone|wooden] house [near the {place}|at the edge of the "
             "village|by the sea|on a green hill|next to a big farm|at the end of a long road]"],
    "trait": ["kind", "little", "happy", "brave", "clever", "shy", "curious", "cheerful", "gentle",
              "quiet", "funny", "good"],
    "weather": ["The sun was [shining|warm|bright] and the sky was blue.",
                "The [birds were singing|wind was soft|air was cool and fresh].",
                "It was a [beautiful|lovely|perfect] day.",
                "There were [white|big|soft] clouds in the sky.",
                "The [trees|flowers|leaves] moved in the wind."],
    "walk": ["{He} [walked|skipped|hurried|went] [along the path|down the road|past the old mill|over "
             "the little bridge|through the tall grass|past the big oak tree]."],
    "sad": ["{He} felt [very|so] [sad|unhappy].", "{He} [began|started] to cry.",
            "A tear ran down {his} cheek.", "{He} sat down [on a stone|under a tree|on the grass] and "
            "did not know what to do.", "{His} heart felt heavy."],
    "glad": ["{He} was [so|very] happy.", "{He} [smiled|laughed] and [clapped {his} hands|jumped up and "
             "down|danced around].", "{He} had a big smile on {his} face.",
             "{He} felt warm and happy inside."],
    "idea": ["Then {he} had an idea.", "{He} thought [hard|for a long time]. Then {he} had [an idea|a "
             "good idea|a plan].", "Suddenly, {he} knew what to do."],
    "thanks": ['"Thank you[| so much| very much]!" said {hero}.',
               '{hero} [said|shouted], "Thank you! You are [very kind|a good friend|so clever]."',
               '"Thank you for your help," said {hero}.'],
    "welcome": ['"You are welcome," said the {ani}.', 'The {ani} [smiled|nodded]. "I am always happy to '
                'help," it said.', '"It was nothing," said the {ani}[| with a smile].'],
    "worry": ['"[Oh no|Oh dear]!" said {hero}.', '"What [shall|can] I do[| now]?" said {hero}.',
              '{hero} was [worried|afraid|upset].'],
    "end": ["That night, {hero} [went to bed|fell asleep] with a smile.",
            "{hero} never forgot that day.",
            "It was the best day of {his} life.",
            "And they all lived happily ever after.",
            "After that, {he} was never [sad|lonely|afraid] again."],
    "out": ["When {he} got home, {he} told {his} {par} all about it.",
            "{He} went home, ate {his} supper and slept well all night.",
            "{He} ran home and told {his} {par} about it.", "<end>", "<end>"],
    "pals": ["From that day on, {hero} and {friend} were [the best of friends|best friends].",
             "{hero} and {friend} were happy.", "<end>"],
    "snack": ["They sat [under a tree|on the grass|by the water] and ate {food} together.",
              "Then they [shared|ate] some {food} and drank [milk|cold water|warm tea|apple juice].",
              "{His} {par} gave them some {food}."],
    "beast": "rabbit bird duck cat dog butterfly squirrel frog".split(),
    "saw": ["{He} saw [a <beast>|two birds|three ducks|some children|many flowers|an old man|a big "
            "tree|a small boat] [there|on the way|near the {place}]."],
}

OPENINGS = ["Once upon a time, there was a <trait> {kind} named {hero}. {He} lived in <home> with {his} "
            "{par}.",
            "Once upon a time, there was a <trait> {kind} called {hero}. {hero} lived in <home>.",
            "Once upon a time, a <trait> {kind} named {hero} lived in <home>.",
            "Once upon a time, in <home>, there lived a <trait> {kind} named {hero}.",
            "There was once a <trait> {kind} named {hero}. {He} lived in <home> with {his} {par}.",
            "{hero} was a <trait> {kind}. {He} lived in <home> with {his} {par}.",
            "Long ago, there was a <trait> {kind} called {hero}. {He} lived in <home>."]


def read_plots(path: Path) -> list[tuple[str, list[str]]]:
    """Each plot: whom it suits, "child" or "any", and its lines."""
    plots: list[tuple[str, list[str]]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            plots.append((line[3:].split(":")[0], []))
        elif plots and line:
            plots[-1][1].append(line)
    return plots


PLOTS = read_plots(Path(__file__).parent / "plots.txt")
MAX_PIECES = 234
VARIABLE = re.compile(r"\{(\w+)\}")
PART = re.compile(r"<(\w+)>")
ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
PIECE = re.compile(r"\w+|[^\w\s]+")
CHOICE = re.compile(r"\[([^\[\]]*)\]")


def pick(rng: random.Random, options: Sequence):
    """One of the options, the earlier the likelier: 1/2 to 1/3 to 1/4 and so on.

    Were all as likely, the model would learn ties, and its greedy text would hang
    on the last bit of a logit.
    """
    return rng.choices(options, [1 / (i + 2) for i in range(len(options))])[0]


def draw(rng: random.Random, options: Sequence, n: int) -> list:
    """n different options, each drawn by `pick` from those left."""
    left = list(options)
    return [left.pop(left.index(pick(rng, left))) for _ in range(n)]


def expand(rng: random.Random, text: str, cast: dict[str, str]) -> str:
    """Draws the parts and choices of a template and fills the cast in."""
    while "<" in text or "[" in text:
        text = PART.sub(lambda m: pick(rng, PARTS[m[1]]), text)
        text = CHOICE.sub(lambda m: pick(rng, m[1].split("|")), text)
    return ARTICLE.sub(r"\1n ", VARIABLE.sub(lambda m: cast[m[1]], text))


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def draw_cast(rng: random.Random, animal: bool) -> dict[str, str]:
    """Who and what the story is about."""
    she = rng.random() < 0.6
    girls, boys = draw(rng, GIRLS, 3), draw(rng, BOYS, 3)
    friend_she = rng.random() < 0.6
    third_she = rng.random() < 0.6
    beast, other = draw(rng, list(BEASTS), 2)
    he, his, him, himself, child = CALLED["she" if she else "he"]
    fhe, fhis, fhim, fhimself, _ = CALLED["she" if friend_she else "he"]
    col, col2 = draw(rng, COLS, 2)
    obj, obj2 = draw(rng, TOYS, 2)
    ani = pick(rng, [w for w in WISE if w not in (beast, other)])
    cast = {
        "hero": pick(rng, BEASTS[beast].split()) if animal else (girls if she else boys)[0],
        "kind": beast if animal else child,
        "friend": pick(rng, BEASTS[other].split()) if animal else (girls if friend_she else boys)[1],
        "third": (girls if third_she else boys)[2],
        "kind3": "girl" if third_she else "boy", "He3": "She" if third_she else "He",
        "he": he, "his": his, "him": him, "himself": himself,
        "fhe": fhe, "fhis": fhis, "fhim": fhim, "fhimself": fhimself,
        "par": pick(rng, ("mother", "father")),
        "place": pick(rng, PLACES), "food": pick(rng, FOODS),
        "ani": ani, "a_ani": a(ani), "ruler": pick(rng, ("king", "queen")),
        "col": col, "obj": obj, "cobj": f"{col} {obj}", "cobj2": f"{col2} {obj2}",
    }
    for key in ("he", "his", "him", "fhe", "fhis"):
        upper = key[0].upper() + key[1:] if key[0] != "f" else "f" + key[1].upper() + key[2:]
        cast[upper] = cast[key][0].upper() + cast[key][1:]
    return cast


def n_pieces(text: str) -> int:
    """Words and runs of punctuation: a little less than the tokens."""
    return len(PIECE.findall(text))


def compose(rng: random.Random, needs: str, plot: list[str]) -> str:
    """One telling of a plot, of any length."""
    animal = needs == "any" and rng.random() < 0.35
    cast = draw_cast(rng, animal)
    lines = list(plot)
    # An animal has to be introduced; a child may just be there.
    if animal or rng.random() < 0.7:
        lines.insert(0, pick(rng, OPENINGS))
        if rng.random() < 0.3:
            lines.insert(1, "<love>")
        if animal and any("{friend}" in line for line in plot):
            lines[0] += " {His} best friend was {friend}."
    keep = rng.choice((0.1, 0.3, 0.5, 0.7, 0.9))
    said = []
    for line in lines:
        first, *maybe = re.split(r"(?:^| )\?(?=\S)", line)
        said += [part for part in [first] + [m for m in maybe if rng.random() < keep] if part]
    return " ".join(" ".join(expand(rng, part, cast) for part in said).split())


def story(rng: random.Random) -> str:
    """One story that fits the model's context of 256 tokens."""
    needs, plot = pick(rng, PLOTS)
    while n_pieces(told := compose(rng, needs, plot)) > MAX_PIECES:
        pass
    return told
