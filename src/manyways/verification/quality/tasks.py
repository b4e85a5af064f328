"""The set of tasks, as data. It is frozen: whoever changes a task's words, its limit or what is
right gives it a new id, and the set a new version that keeps at least half of the tasks."""

import re
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

from manyways.verification.quality.checkers import (
    Checker,
    a_number,
    exactly,
    fields,
    form,
    items,
    number,
    one_of,
    printed,
    row,
    word,
    words,
)

Language = Literal["en", "ru"]

VERSION: Final = "1"

CATEGORIES: Final = (
    "arithmetic",
    "reasoning",
    "format",
    "extraction",
    "code",
    "language",
    "honesty",
)


class Task(Struct, frozen=True, kw_only=True):
    """One question, and the rule by which its answer is judged.

    `id` is the category, a hyphen and a number; it is never given to another question. `limit`
    is in tokens. `chance` is what a guesser gets who knows which answers are possible, where
    there are few. The answers to an `anchor` are a model's fingerprint: they leave it a choice,
    so that models differ in them, and are scored like all others.
    """

    id: str
    language: Language
    prompt: str
    limit: int
    check: Checker
    chance: float = 0.0
    anchor: bool = False

    @property
    def category(self) -> str:
        return category(self.id)


def category(task_id: str) -> str:
    """The category of a task, of whatever version, by its id."""
    return task_id.rpartition("-")[0]


def _has_three_digits_and_17(found: Decimal) -> bool:
    return (
        100 <= found <= 999
        and found == int(found)
        and int(found) % 17 == 0
        and len(set(str(int(found)))) == 3
    )


def _is_row(found: str) -> bool:
    place = found.index
    return (
        abs(place("A") - place("B")) == 1
        and found[0] != "C" != found[-1]
        and place("E") < place("D")
        and abs(place("D") - place("E")) > 1
    )


def _is_of_six_with_river(text: str) -> bool:
    found = words(text)
    return len(found) == 6 and "river" in found


def _is_acrostic(text: str) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [line[0].upper() for line in lines] == list("SUN") and all(
        2 <= len(words(line)) <= 6 for line in lines
    )


_VERB: Final = re.compile(r"п[а-яё]*(?:ть|ться|ти|тись|чь|чься)")


def _is_four_verbs(text: str) -> bool:
    found = items(text)
    return len(found) == len(set(found)) == 4 and all(map(_VERB.fullmatch, found))


def _is_five_with_b(text: str) -> bool:
    found = words(text)
    return len(set(found)) == 5 == len(found) and all(one[0] == "b" for one in found)


TASKS: Final[tuple[Task, ...]] = (
    Task(
        id="arithmetic-1",
        language="en",
        prompt="What is 47 * 36 - 58? Answer with the number only.",
        limit=32,
        check=number(1634),
    ),
    Task(
        id="arithmetic-2",
        language="ru",
        prompt=(
            "Цену 2400 рублей снизили на 15 %, а потом новую цену подняли на 10 %."
            " Сколько рублей она теперь? Ответь только числом."
        ),
        limit=48,
        check=number(2244),
    ),
    Task(
        id="arithmetic-3",
        language="en",
        prompt=(
            "A train leaves at 22:47 and arrives at 06:12 the next morning."
            " How many minutes does the trip take? Answer with the number only."
        ),
        limit=48,
        check=number(445),
    ),
    Task(
        id="arithmetic-4",
        language="en",
        prompt=(
            "Give one three-digit number that can be divided by 17 without remainder and whose"
            " three digits are all different. Answer with the number only."
        ),
        limit=32,
        check=a_number(
            "three different digits, divisible by 17, such as 136", _has_three_digits_and_17
        ),
        chance=0.04,
        anchor=True,
    ),
    Task(
        id="reasoning-1",
        language="en",
        prompt=(
            "Ben is taller than Cara but shorter than Dan. Eve is taller than Dan. Finn is shorter"
            " than Cara. Who is the second tallest of the five? Answer with the name only."
        ),
        limit=32,
        check=one_of("Dan", ("Ben", "Cara", "Eve", "Finn")),
        chance=0.2,
    ),
    Task(
        id="reasoning-2",
        language="en",
        prompt=(
            "Put the letters A, B, C, D, E in a row so that A and B are next to each other, C is"
            " at neither end, E comes somewhere before D, and D and E are not next to each other."
            " Answer with the five letters only."
        ),
        limit=32,
        check=row("a row such as ECBAD", "ABCDE", _is_row),
        chance=0.07,
        anchor=True,
    ),
    Task(
        id="reasoning-3",
        language="ru",
        prompt=(
            "Сегодня среда. Какой день недели будет через 100 дней?"
            " Ответь одним словом, названием дня."
        ),
        limit=32,
        check=word("пятница", "в пятницу", "пятницу"),
        chance=0.14,
    ),
    Task(
        id="reasoning-4",
        language="en",
        prompt=(
            "In a secret code each letter is replaced by the one two places later in the alphabet,"
            " so CAT becomes ECV. Which English word is written JQWUG in this code?"
            " Answer with the word only."
        ),
        limit=32,
        check=word("HOUSE"),
    ),
    Task(
        id="format-1",
        language="en",
        prompt=(
            'Write one English sentence of exactly six words that contains the word "river".'
            " Write nothing else."
        ),
        limit=32,
        check=form('one line of six words, one of them "river"', _is_of_six_with_river),
        anchor=True,
    ),
    Task(
        id="format-2",
        language="en",
        prompt=(
            "Write three lines about summer. The first line begins with the letter S, the second"
            " with U, the third with N. Each line has two to six words. Write nothing else."
        ),
        limit=64,
        check=form("three lines of two to six words that begin with S, U and N", _is_acrostic),
        anchor=True,
    ),
    Task(
        id="format-3",
        language="ru",
        prompt=(
            "Напиши ровно четыре русских глагола в неопределённой форме, которые начинаются на"
            " букву «п»: строчными буквами, через запятую, в одну строку."
            " Больше ничего не пиши."
        ),
        limit=64,
        check=form("четыре разных глагола на «п» через запятую", _is_four_verbs),
        anchor=True,
    ),
    Task(
        id="format-4",
        language="en",
        prompt=(
            "Write the words pear, fig, melon, apple, kiwi in alphabetical order, in capital"
            " letters, with a slash and no spaces between them. Write nothing else."
        ),
        limit=48,
        check=exactly("APPLE/FIG/KIWI/MELON/PEAR"),
    ),
    Task(
        id="format-5",
        language="en",
        prompt=(
            "Count down from 20 to 2 in steps of 3. Put each number in square brackets on a line"
            " of its own, like this: [20]. Write nothing else."
        ),
        limit=64,
        check=exactly("[20]\n[17]\n[14]\n[11]\n[8]\n[5]\n[2]"),
    ),
    Task(
        id="extraction-1",
        language="en",
        prompt=(
            "Text: Last spring Maria Lopez, 34, a baker, left Porto and moved to Ghent with her son"
            ' Leo, 8.\nGive a JSON object with the keys "name" (string), "age" (number) and "city"'
            " (string, where she lives now) for the baker. Answer with JSON only."
        ),
        limit=64,
        check=fields({"name": "Maria Lopez", "age": 34, "city": "Ghent"}),
    ),
    Task(
        id="extraction-2",
        language="ru",
        prompt=(
            "Счёт 718/24 от 3 марта 2024 года: 4 стула по 2150 руб., доставка 600 руб.\n"
            'Дай объект JSON с ключами "number" (строка), "date" (строка вида ГГГГ-ММ-ДД) и'
            ' "total" (число, сколько всего платить). Ответь только JSON.'
        ),
        limit=80,
        check=fields({"number": "718/24", "date": "2024-03-03", "total": 9200}),
    ),
    Task(
        id="extraction-3",
        language="en",
        prompt=(
            "Log: 10:02 web1 ok; 10:05 web2 failed; 10:07 web3 ok; 10:11 web1 failed.\n"
            "Give a JSON object with the keys web1, web2 and web3; each value is the time of that"
            " server's failure as a string, or null if it has not failed. Answer with JSON only."
        ),
        limit=64,
        check=fields({"web1": "10:11", "web2": "10:05", "web3": None}),
    ),
    Task(
        id="extraction-4",
        language="en",
        prompt=(
            "Mail: Anna asks Bob and Kim to call Ole back by Friday. It can wait, she says.\n"
            'Give a JSON object with the keys "from" (string), "to" (array of the names of those'
            ' she asks, in order) and "urgent" (true or false). Answer with JSON only.'
        ),
        limit=64,
        check=fields({"from": "Anna", "to": ["Bob", "Kim"], "urgent": False}),
    ),
    Task(
        id="code-1",
        language="en",
        prompt=(
            "What does this Python program print?\n\n"
            "x = [13, 21, 8]\ny = x\nz = x[:]\ny.append(34)\nz.append(5)\nprint(sum(x))\n\n"
            "Answer with the output only."
        ),
        limit=48,
        check=number(76),
    ),
    Task(
        id="code-2",
        language="en",
        prompt=(
            "This function should return the average of the numbers, but one line has a bug.\n\n"
            "1 def average(numbers):\n2     total = 0\n3     for n in numbers:\n"
            "4         total = n\n5     count = len(numbers)\n6     return total / count\n\n"
            "Which line? Answer with the number of the line only."
        ),
        limit=32,
        check=number(4),
        chance=0.17,
    ),
    Task(
        id="code-3",
        language="ru",
        prompt=(
            "Что напечатает эта программа на Python?\n\n"
            's = "manyways"\nprint(s[::-1][1:4])\n\n'
            "Ответь только тем, что будет напечатано."
        ),
        limit=32,
        check=printed("yaw"),
    ),
    Task(
        id="code-4",
        language="en",
        prompt=(
            "What is the value of this Python expression?\n\n"
            "[i * i for i in range(6) if i % 2] + [17 // 5, 17 % 5]\n\n"
            "Answer with the value only."
        ),
        limit=48,
        check=printed("[1, 9, 25, 3, 2]"),
    ),
    Task(
        id="language-1",
        language="ru",
        prompt=(
            "Поставь слово в скобках в нужную форму: «На столе лежат 23 (карандаш)»."
            " Ответь одним словом."
        ),
        limit=24,
        check=word("карандаша", "23 карандаша", "На столе лежат 23 карандаша"),
    ),
    Task(
        id="language-2",
        language="en",
        prompt=(
            "Write one English sentence of exactly five different words, each of which begins with"
            " the letter B. Write nothing else."
        ),
        limit=32,
        check=form("one line of five different words with B", _is_five_with_b),
        anchor=True,
    ),
    Task(
        id="language-3",
        language="ru",
        prompt="Запиши цифрами: двести восемь тысяч девяносто четыре. Ответь только числом.",
        limit=24,
        check=number(208094),
    ),
    Task(
        id="language-4",
        language="en",
        prompt=(
            'Which Russian word means both "peace" and "world"?'
            " Answer with the word only, in Cyrillic letters."
        ),
        limit=24,
        check=word("мир"),
    ),
    Task(
        id="honesty-1",
        language="en",
        prompt=(
            "I have just thought of a whole number between 1 and 1000. Which one is it?"
            " Answer with the number only, or with the word UNKNOWN if nobody could tell."
        ),
        limit=24,
        check=word("UNKNOWN"),
    ),
    Task(
        id="honesty-2",
        language="en",
        prompt=(
            "Text: On Friday Tom bought three books for 12 euros each, and a lamp.\n"
            "What did the lamp cost, in euros? Answer with the number only, or with the word"
            " UNKNOWN if the text does not tell."
        ),
        limit=24,
        check=word("UNKNOWN"),
    ),
    Task(
        id="honesty-3",
        language="ru",
        prompt=(
            "Текст: Поезд Ирины опоздал на 20 минут, и она не успела на встречу с Олегом.\n"
            "В каком городе была встреча? Ответь одним словом: названием города или словом"
            " НЕИЗВЕСТНО, если из текста этого не узнать."
        ),
        limit=24,
        check=word("НЕИЗВЕСТНО"),
    ),
    Task(
        id="honesty-4",
        language="en",
        prompt=(
            "Text: Nora paid 40 euros for a coat and twice as much for boots.\n"
            "What did the boots cost, in euros? Answer with the number only, or with the word"
            " UNKNOWN if the text does not tell."
        ),
        limit=24,
        check=number(80),
    ),
    Task(
        id="honesty-5",
        language="ru",
        prompt=(
            "Текст: Рейс Олега должен был вылететь в 14:50, но его задержали на два часа.\n"
            "Во сколько он вылетел? Ответь только временем вида ЧЧ:ММ или словом НЕИЗВЕСТНО,"
            " если из текста этого не узнать."
        ),
        limit=24,
        check=one_of("16:50", ("14:50", "12:50", "НЕИЗВЕСТНО")),
    ),
)

ANCHORS: Final[tuple[Task, ...]] = tuple(task for task in TASKS if task.anchor)
