"""Made-up people by the million, for loads, benchmarks and tests that want awkward text.

Seeded and streaming: a seed gives the same rows on every machine, a shorter file is the beginning
of a longer one, and memory does not grow with the number of rows. About three rows in ten hold
what breaks careless readers of CSV: commas, quotes, apostrophes, line breaks, emoji.
"""

# ruff: noqa: RUF001 - Cyrillic names are written in Cyrillic letters

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

HEADER = "id,first_name,last_name,country,address,city\n"
BATCH_ROWS = 2_000


class _Country(NamedTuple):
    weight: int
    name: str
    cities: tuple[str, ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    streets: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip().replace("_", " ") for word in text.split())


_COUNTRIES = (
    _Country(
        24,
        "United States",
        ("New York", "Los Angeles", "Chicago", "Houston", "Phoenix", "Washington, D.C."),
        _words("Mary James Linda Robert Patricia John Jennifer Michael Ava Noah Mia Liam"),
        _words("Smith Johnson Williams Brown Jones Garcia Miller Davis O'Brien McDonald Lee"),
        ("Main St.", "Oak Ave, Apt 4", "Elm St.", 'Old "Mill" Rd', "Martin Luther King Jr. Blvd"),
    ),
    _Country(
        9,
        "Australia",
        ("Sydney", "Melbourne", "Brisbane", "Perth", "Adelaide", "Wagga Wagga"),
        _words("Olivia Jack Charlotte William Amelia Henry Isla Thomas Zoe Lachlan"),
        _words("Smith Nguyen Jones Taylor Singh O'Connor Walker White Harris Kelly"),
        ("Leaf St.", "George St", "Pitt St", "Unit 3, Beach Rd", "Surf Pde 🏄"),
    ),
    _Country(
        14,
        "India",
        ("Mumbai", "Delhi", "Bengaluru", "हैदराबाद", "Chennai", "Kolkata"),
        _words("Aarav Diya Vivaan Ananya Aditya Saanvi Arjun Priya आरव अनन्या"),
        _words("Sharma Patel Singh Kumar Gupta Reddy Iyer Das शर्मा D'Souza"),
        ("MG Road", "Nehru Nagar, Block C", "Station Road", "Gandhi Marg"),
    ),
    _Country(
        9,
        "Deutschland",
        ("Berlin", "Hamburg", "München", "Köln", "Düsseldorf", "Frankfurt am Main"),
        _words("Anna Jürgen Lukas Käthe Björn Sophie Günther Mia Leon Zoë"),
        _words("Müller Schmidt Schneider Weiß Groß Schäfer von_der_Heide Köhler Becker"),
        ("Hauptstraße", "Bahnhofstraße", "Königsallee", "Am Grün", "Lindenweg, Hinterhaus"),
    ),
    _Country(
        7,
        "France",
        ("Paris", "Lyon", "Marseille", "Saint-Étienne", "L'Haÿ-les-Roses"),
        _words("Chloé Hugo Léa Jean-Luc Zoé François Inès Gaël Maëlys Noël"),
        _words("Martin Lefèvre D'Artagnan Dubois L'Hôpital Moreau Bâtard Le_Gall"),
        ("rue de l'Église", "avenue Victor-Hugo", "place d'Italie, bât. B", "rue du Bac"),
    ),
    _Country(
        9,
        "日本",
        ("東京", "大阪", "京都", "札幌", "横浜"),
        _words("太郎 花子 翔太 さくら 健一 美咲 陽菜 蓮"),
        _words("佐藤 鈴木 高橋 田中 伊藤 渡辺 山本 𠮷田"),
        ("丁目", "番地", "中央通り", "桜通り 🌸"),
    ),
    _Country(
        9,
        "Brasil",
        ("São Paulo", "Rio de Janeiro", "Brasília", "Belém", "Florianópolis"),
        _words("João Ana Antônio Conceição Luís Letícia Caio Íris"),
        _words("Silva Souza Gonçalves Araújo Magalhães d'Ávila Nóbrega Lima"),
        ("Rua das Flores", "Av. Paulista, 3º andar", "Travessa São José", "Praça da Sé"),
    ),
    _Country(
        5,
        "Україна",
        ("Київ", "Львів", "Одеса", "Харків"),
        _words("Олена Андрій Наталія Богдан Мар'яна Тарас Соломія"),
        _words("Шевченко Коваленко Мельник В'юн Ткаченко Стус"),
        ("вул. Хрещатик", "просп. Свободи", "вул. Лесі Українки, корп. 2"),
    ),
    _Country(
        6,
        "مصر",
        ("القاهرة", "الإسكندرية", "الجيزة"),
        _words("محمد فاطمة أحمد مريم عمر ليلى"),
        _words("حسن علي إبراهيم السيد محمود"),
        ("شارع النيل", "شارع التحرير", "ميدان رمسيس"),
    ),
    _Country(
        4,
        "Côte d'Ivoire",
        ("Abidjan", "Yamoussoukro", "Bouaké"),
        _words("Kouadio Aïcha N'Guessan Fatou Yao Awa"),
        _words("Kouassi Koné N'Dri Touré Ouattara"),
        ("rue des Jardins", "boulevard Lagunaire", "carrefour «Vie»"),
    ),
    _Country(
        4,
        'Éire, "the Republic"',
        ("Baile Átha Cliath", "Corcaigh", "Gaillimh"),
        _words("Seán Siobhán Pádraig Niamh Róisín Ciarán"),
        _words("O'Neill Ó_Briain MacGowan Ní_Dhálaigh O'Shea"),
        ("Sráid Uí Chonaill", "Flat 2\nHigh St.", "The Old Mill, Quay Rd"),
    ),
)


def _field(text: str) -> str:
    if any(mark in text for mark in ',"\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _by_chance() -> list[_Country]:
    # Quoted once here, so that a row costs a few table look-ups and one join.
    ready = [
        country._replace(
            name=_field(country.name),
            cities=tuple(map(_field, country.cities)),
            first=tuple(map(_field, country.first)),
            last=tuple(map(_field, country.last)),
        )
        for country in _COUNTRIES
    ]
    return [country for country in ready for _ in range(country.weight)]


def people_csv(*, rows: int, seed: int = 1, first_id: int = 1) -> Iterator[str]:
    """Yield a CSV file of made-up users piece by piece, its header first.

    Args:
        rows: How many users, whose ids count up from ``first_id``.
        seed: Chooses the users; the same seed gives the same users in the same order.
        first_id: The first id.
    """
    yield HEADER
    chance = random.Random(seed)  # noqa: S311 - made-up people, not secrets
    table = _by_chance()
    batch: list[str] = []
    for number in range(first_id, first_id + rows):
        bits = chance.getrandbits(64)
        country = table[bits % len(table)]
        bits >>= 8
        first = country.first[bits % len(country.first)]
        bits >>= 8
        last = country.last[bits % len(country.last)]
        bits >>= 8
        city = country.cities[bits % len(country.cities)]
        bits >>= 8
        street = country.streets[bits % len(country.streets)]
        address = _field(f"{bits >> 16 & 1023} {street}")
        batch.append(f"{number},{first},{last},{country.name},{address},{city}\n")
        if len(batch) == BATCH_ROWS:
            yield "".join(batch)
            batch.clear()
    if batch:
        yield "".join(batch)
