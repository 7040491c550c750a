"""Plain facts: small tables and the sentences that state them."""

import random
import re

# country, capital, continent, language
COUNTRIES = [row.split(",") for row in """
France,Paris,Europe,French
Germany,Berlin,Europe,German
Italy,Rome,Europe,Italian
Spain,Madrid,Europe,Spanish
Portugal,Lisbon,Europe,Portuguese
England,London,Europe,English
Scotland,Edinburgh,Europe,English
Wales,Cardiff,Europe,Welsh
Ireland,Dublin,Europe,English
Austria,Vienna,Europe,German
Belgium,Brussels,Europe,Dutch
Denmark,Copenhagen,Europe,Danish
Sweden,Stockholm,Europe,Swedish
Norway,Oslo,Europe,Norwegian
Finland,Helsinki,Europe,Finnish
Iceland,Reykjavik,Europe,Icelandic
Poland,Warsaw,Europe,Polish
Hungary,Budapest,Europe,Hungarian
Greece,Athens,Europe,Greek
Romania,Bucharest,Europe,Romanian
Bulgaria,Sofia,Europe,Bulgarian
Croatia,Zagreb,Europe,Croatian
Serbia,Belgrade,Europe,Serbian
Slovenia,Ljubljana,Europe,Slovenian
Slovakia,Bratislava,Europe,Slovak
Ukraine,Kyiv,Europe,Ukrainian
Russia,Moscow,Europe,Russian
Estonia,Tallinn,Europe,Estonian
Latvia,Riga,Europe,Latvian
Lithuania,Vilnius,Europe,Lithuanian
Albania,Tirana,Europe,Albanian
Malta,Valletta,Europe,Maltese
Turkey,Ankara,Asia,Turkish
Japan,Tokyo,Asia,Japanese
China,Beijing,Asia,Chinese
India,New Delhi,Asia,Hindi
Nepal,Kathmandu,Asia,Nepali
Thailand,Bangkok,Asia,Thai
Vietnam,Hanoi,Asia,Vietnamese
Indonesia,Jakarta,Asia,Indonesian
Malaysia,Kuala Lumpur,Asia,Malay
Mongolia,Ulaanbaatar,Asia,Mongolian
South Korea,Seoul,Asia,Korean
Iran,Tehran,Asia,Persian
Iraq,Baghdad,Asia,Arabic
Jordan,Amman,Asia,Arabic
Lebanon,Beirut,Asia,Arabic
Saudi Arabia,Riyadh,Asia,Arabic
Pakistan,Islamabad,Asia,Urdu
Bangladesh,Dhaka,Asia,Bengali
Egypt,Cairo,Africa,Arabic
Morocco,Rabat,Africa,Arabic
Tunisia,Tunis,Africa,Arabic
Algeria,Algiers,Africa,Arabic
Kenya,Nairobi,Africa,Swahili
Ethiopia,Addis Ababa,Africa,Amharic
Ghana,Accra,Africa,English
Senegal,Dakar,Africa,French
Uganda,Kampala,Africa,English
Zambia,Lusaka,Africa,English
Angola,Luanda,Africa,Portuguese
Mali,Bamako,Africa,French
Canada,Ottawa,North America,English
Mexico,Mexico City,North America,Spanish
Cuba,Havana,North America,Spanish
Jamaica,Kingston,North America,English
Costa Rica,San Jose,North America,Spanish
Brazil,Brasilia,South America,Portuguese
Argentina,Buenos Aires,South America,Spanish
Chile,Santiago,South America,Spanish
Peru,Lima,South America,Spanish
Colombia,Bogota,South America,Spanish
Ecuador,Quito,South America,Spanish
Uruguay,Montevideo,South America,Spanish
Venezuela,Caracas,South America,Spanish
Australia,Canberra,Oceania,English
New Zealand,Wellington,Oceania,English
Fiji,Suva,Oceania,English
""".strip().splitlines()]

COLOURS = dict(row.split(":") for row in """
the sky:blue|grass:green|snow:white|coal:black|a banana:yellow|a lemon:yellow|a tomato:red
a strawberry:red|a cherry:red|a carrot:orange|a pumpkin:orange|an orange:orange|the sun:yellow
milk:white|a cloud:white|a plum:purple|a frog:green|a leaf:green|chocolate:brown|an elephant:grey
a flamingo:pink|a crow:black|a polar bear:white|a fire engine:red|the sea:blue|a cucumber:green
a chestnut:brown|a pea:green|sand:yellow|the night sky:black""".replace("\n", "|").strip("|").split("|"))

SOUNDS = dict(row.split(":") for row in """
cow:moo|dog:woof|cat:meow|duck:quack|sheep:baa|pig:oink|frog:croak|bee:buzz|lion:roar|owl:hoot
snake:hiss|mouse:squeak|horse:neigh|donkey:hee-haw|hen:cluck|bird:tweet|goose:honk|wolf:howl
goat:bleat|crow:caw""".replace("\n", "|").strip("|").split("|"))

YOUNG = dict(row.split(":") for row in """
dog:puppy|cat:kitten|cow:calf|sheep:lamb|horse:foal|pig:piglet|hen:chick|duck:duckling|bear:cub
goat:kid|lion:cub|frog:tadpole|goose:gosling|deer:fawn|kangaroo:joey|swan:cygnet|owl:owlet
seal:pup""".replace("\n", "|").strip("|").split("|"))

HOMES = dict(row.split(":") for row in """
bird:nest|bee:hive|spider:web|dog:kennel|horse:stable|rabbit:burrow|fox:den|bear:cave
lion:den|hen:coop|pig:sty|fish:water|squirrel:tree|mole:hole""".replace("\n", "|").strip("|").split("|"))

FOOD = dict(row.split(":") for row in """
rabbits:carrots and grass|cows:grass|horses:hay and oats|bears:fish and berries|mice:seeds and cheese
squirrels:nuts|monkeys:fruit|pandas:bamboo|lions:meat|birds:seeds and worms|cats:fish and mice
bees:nectar|giraffes:leaves|penguins:fish|owls:mice|hedgehogs:insects|goats:grass and leaves
caterpillars:leaves""".replace("\n", "|").strip("|").split("|"))

OPPOSITES = [tuple(row.split(":")) for row in """
big:small|hot:cold|up:down|day:night|happy:sad|fast:slow|old:new|tall:short|light:dark|open:closed
wet:dry|full:empty|hard:soft|loud:quiet|high:low|early:late|clean:dirty|strong:weak|left:right
near:far|thick:thin|first:last|summer:winter|black:white|rich:poor|sweet:sour|inside:outside
above:below|yes:no|good:bad""".replace("\n", "|").strip("|").split("|")]

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October "
          "November December").split()
SEASONS = "spring summer autumn winter".split()
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen "
           "fourteen fifteen sixteen seventeen eighteen nineteen twenty").split()
ORDINALS = ("first second third fourth fifth sixth seventh eighth ninth tenth eleventh "
            "twelfth").split()

# question, short answer, full sentence
PLAIN = [tuple(row.split("|")) for row in """
How many legs does a dog have?|four|A dog has four legs.
How many legs does a spider have?|eight|A spider has eight legs.
How many legs does an insect have?|six|An insect has six legs.
How many legs does a bird have?|two|A bird has two legs.
How many days are in a week?|seven|There are seven days in a week.
How many months are in a year?|twelve|There are twelve months in a year.
How many hours are in a day?|twenty-four|There are twenty-four hours in a day.
How many minutes are in an hour?|sixty|There are sixty minutes in an hour.
How many seconds are in a minute?|sixty|There are sixty seconds in a minute.
How many sides does a triangle have?|three|A triangle has three sides.
How many sides does a square have?|four|A square has four sides.
How many fingers are on one hand?|five|There are five fingers on one hand.
How many wheels does a bicycle have?|two|A bicycle has two wheels.
How many wheels does a car have?|four|A car has four wheels.
How many seasons are in a year?|four|There are four seasons in a year.
How many letters are in the alphabet?|twenty-six|There are twenty-six letters in the alphabet.
What do bees make?|honey|Bees make honey.
What do cows give us?|milk|Cows give us milk.
What do hens lay?|eggs|Hens lay eggs.
What do sheep give us?|wool|Sheep give us wool.
What is ice made of?|water|Ice is made of frozen water.
What is bread made of?|flour|Bread is made of flour and water.
What is cheese made of?|milk|Cheese is made of milk.
What is paper made of?|wood|Paper is made of wood.
What is glass made of?|sand|Glass is made of sand.
What do we see with?|our eyes|We see with our eyes.
What do we hear with?|our ears|We hear with our ears.
What do we smell with?|our nose|We smell with our nose.
What do we taste with?|our tongue|We taste with our tongue.
Where does the sun rise?|in the east|The sun rises in the east.
Where does the sun set?|in the west|The sun sets in the west.
When do we see the stars?|at night|We see the stars at night.
What falls from the clouds?|rain|Rain falls from the clouds.
What goes around the Earth?|the Moon|The Moon goes around the Earth.
What does the Earth go around?|the Sun|The Earth goes around the Sun.
What is the largest animal?|the blue whale|The blue whale is the largest animal.
What is the tallest animal?|the giraffe|The giraffe is the tallest animal.
What is the fastest land animal?|the cheetah|The cheetah is the fastest land animal.
What is the largest ocean?|the Pacific Ocean|The Pacific Ocean is the largest ocean.
What is the highest mountain?|Mount Everest|Mount Everest is the highest mountain.
What is the largest planet?|Jupiter|Jupiter is the largest planet.
Which planet do we live on?|the Earth|We live on the planet Earth.
Which star is nearest to the Earth?|the Sun|The Sun is the star nearest to the Earth.
Who bakes bread?|a baker|A baker bakes bread.
Who grows food?|a farmer|A farmer grows food.
Who helps sick people?|a doctor|A doctor helps sick people.
Who teaches children?|a teacher|A teacher teaches children.
Who puts out fires?|a firefighter|A firefighter puts out fires.
Who flies a plane?|a pilot|A pilot flies a plane.
Who catches fish?|a fisherman|A fisherman catches fish.
What do you get when you mix blue and yellow?|green|Blue and yellow make green.
What do you get when you mix red and yellow?|orange|Red and yellow make orange.
What do you get when you mix red and blue?|purple|Red and blue make purple.
What do plants need to grow?|water and light|Plants need water and light to grow.
""".strip().splitlines()]


# A fact and the question that it answers.
Fact = tuple[str, str]
PIECE = re.compile(r"\w+|[^\w\s]+")


def cap(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[0].upper() + text[1:]


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0] in "aeiouAEIO" else "a ") + noun


def capitals() -> list[list[Fact]]:
    """Each way to state and to ask for the capitals, languages and continents."""
    the, city, where, language, tour = [], [], [], [], []
    for country, capital, continent, tongue in COUNTRIES:
        is_in = f"{country} is a country in {continent}."
        speak = f"People in {country} speak {tongue}."
        fact = f"The capital of {country} is {capital}."
        the.append((fact, f"What is the capital of {country}?"))
        city.append((f"{capital} is the capital of {country}.",
                     f"Which city is the capital of {country}?"))
        where.append((is_in, f"Where is {country}?"))
        language.append((speak, f"What language do people speak in {country}?"))
        tour.append((f"{is_in} Its capital is {capital}. {speak}",
                     f"What do you know about {country}?"))
    return [the, the, the, the, city, where, language, tour, tour]


def calendar() -> list[list[Fact]]:
    """Days, months and seasons in their order."""
    tables = []
    for names, word in ((DAYS, "day"), (MONTHS, "month"), (SEASONS, "season")):
        tables.append([(f"The {word} after {x} is {names[(i + 1) % len(names)]}.",
                        f"Which {word} comes after {x}?") for i, x in enumerate(names)])
        tables.append([(f"The {word} before {x} is {names[i - 1]}.",
                        f"Which {word} comes before {x}?") for i, x in enumerate(names)])
    tables.append([(f"{x} is the {ORDINALS[i]} month of the year.",
                    f"Which month is the {ORDINALS[i]} month of the year?")
                   for i, x in enumerate(MONTHS)])
    tables.append([
        (f"The days of the week are {', '.join(DAYS[:-1])} and {DAYS[-1]}.",
         "What are the days of the week?"),
        (f"The four seasons are {', '.join(SEASONS[:-1])} and {SEASONS[-1]}.",
         "What are the four seasons?")])
    return tables


def numbers() -> list[list[Fact]]:
    """Small sums and differences, and the order of numbers, in words."""
    word = NUMBERS
    plus = [[(f"{cap(word[x])} plus {word[y]} is {word[x + y]}.",
              f"What is {word[x]} plus {word[y]}?") for y in range(1, 11)] for x in range(1, 11)]
    minus = [[(f"{cap(word[x])} minus {word[y]} is {word[x - y]}.",
               f"What is {word[x]} minus {word[y]}?") for y in range(1, x + 1)]
             for x in range(2, 11)]
    after = [(f"The number after {word[x]} is {word[x + 1]}.",
              f"Which number comes after {word[x]}?") for x in range(1, 20)]
    return [*plus, *minus, after, after]


def animals() -> list[list[Fact]]:
    """Animals' sounds, young, homes and food."""
    def home(where: str) -> str:
        return "in the water" if where == "water" else f"in {a(where)}"

    return [
        [(f"{cap(a(who))} says {say}.", f"What does {a(who)} say?") for who, say in SOUNDS.items()],
        [(f"A young {who} is called {a(young)}.", f"What is a young {who} called?")
         for who, young in YOUNG.items()],
        [(f"{cap(a(who))} lives {home(where)}.", f"Where does {a(who)} live?")
         for who, where in HOMES.items()],
        [(f"{cap(who)} eat {food}.", f"What do {who} eat?") for who, food in FOOD.items()]]


CAPITALS = capitals()[0]

# Subjects with their weights; every table keeps its order.
SUBJECTS: list[tuple[int, list[list[Fact]]]] = [
    (45, capitals()),
    (9, [[(f"{cap(thing)} is {col}.", f"What colour is {thing}?")
          for thing, col in COLOURS.items()]]),
    (13, animals()),
    (8, calendar()),
    (9, numbers()),
    (7, [[(f"The opposite of {x} is {y}.", f"What is the opposite of {x}?")
          for x, y in OPPOSITES],
         [(f"The opposite of {y} is {x}.", f"What is the opposite of {y}?")
          for x, y in OPPOSITES]]),
    (13, [[(fact, question) for question, _, fact in PLAIN]]),
]
MAX_PIECES = 150


def table(rng: random.Random) -> list[Fact]:
    """One table of one subject."""
    weights = [w for w, _ in SUBJECTS]
    return rng.choice(rng.choices([t for _, t in SUBJECTS], weights)[0])


def put(form: str, facts: list[Fact]) -> str:
    """Facts as running text, or as questions with their answers."""
    if form == "text":
        return " ".join(fact for fact, _ in facts)
    if form == "answer":
        return "\n".join(f"Question: {question}\nAnswer: {fact}" for fact, question in facts)
    return "\n".join(f"{question} {fact}" for fact, question in facts)


def single(rng: random.Random) -> str:
    """One fact; half of them a capital, the better known ones more often."""
    form = rng.choices(("text", "answer", "question"), (60, 25, 15))[0]
    if rng.random() < 0.5:
        return put(form, [rng.choices(CAPITALS, [1 / (i + 3) for i in range(len(CAPITALS))])[0]])
    return put(form, [rng.choice(table(rng))])


def document(rng: random.Random) -> str:
    """Facts of one table in its order, or a few facts of any."""
    form = rng.choices(("text", "answer", "question"), (50, 30, 20))[0]
    if rng.random() < 0.3:
        return put(form, list({fact: question for fact, question in (
            rng.choice(table(rng)) for _ in range(rng.choice((1, 2, 3, 4))))}.items()))
    facts = table(rng)
    start = rng.randrange(len(facts))
    facts = (facts[start:] + facts[:start])[:rng.choice((1, 2, 5, 12, 40, 40, 40, 40))]
    while len(PIECE.findall(put(form, facts))) > MAX_PIECES:
        facts = facts[:-1]
    return put(form, facts)
