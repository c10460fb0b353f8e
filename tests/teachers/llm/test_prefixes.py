"""Prompts with common beginnings are grouped, and each is in one group."""

from __future__ import annotations

import random

from irdistill.teachers.llm.prefixes import Group, group_by_prefix


def test_candidates_of_a_query_stay_together() -> None:
    rules = list(range(100))
    one = [[*rules, 1, 2, 3, 4, 5, passage, 7] for passage in range(20, 60)]
    two = [[*rules, 9, 9, 9, 9, 9, passage] for passage in range(20, 60)]
    mixed = [sequence for pair in zip(one, two, strict=True) for sequence in pair]
    groups = group_by_prefix(mixed)
    assert [(group.length, len(group.members)) for group in groups] == [(105, 40), (105, 40)]
    assert sorted(groups[0].members) == list(range(0, 80, 2))


def test_few_candidates_share_what_all_prompts_begin_with() -> None:
    rules = list(range(100))
    assert group_by_prefix(
        [[*rules, query, passage] for query in (1, 2, 3) for passage in (4, 5)]
    ) == [Group(100, [0, 1, 2, 3, 4, 5])]


def test_sequences_that_share_little_form_one_group() -> None:
    assert group_by_prefix([[1, 2, 3], [1, 2, 4], [5]]) == [Group(0, [0, 1, 2])]
    assert group_by_prefix([[1, 2, 3], [1, 2, 4], [5]], least=2) == [
        Group(2, [0, 1]),
        Group(0, [2]),
    ]
    assert group_by_prefix([]) == []


def test_the_last_id_is_never_in_the_prefix() -> None:
    same = list(range(30))
    assert group_by_prefix([same, same, same[:20]]) == [Group(19, [2, 0, 1])]
    assert group_by_prefix([same, same]) == [Group(29, [0, 1])]


def test_every_sequence_has_one_group_and_its_prefix() -> None:
    draw = random.Random(3)
    stems = [[draw.randrange(3) for _ in range(draw.randrange(40))] for _ in range(8)]
    sequences = [
        [*draw.choice(stems), *(draw.randrange(3) for _ in range(draw.randrange(1, 9)))]
        for _ in range(200)
    ]
    groups = group_by_prefix(sequences, least=4)
    assert sorted(place for group in groups for place in group.members) == list(range(200))
    for length, members in groups:
        assert len({tuple(sequences[place][:length]) for place in members}) == 1
        assert all(len(sequences[place]) > length for place in members)
        assert length == 0 or (length >= 4 and len(members) > 1)
    saved = sum((len(members) - 1) * length for length, members in groups)
    assert saved > 0.5 * sum(map(len, sequences))
