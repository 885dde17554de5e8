"""Templates of log lines: masks, grouping, bounded memory, and going on where one stopped."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.tools.errors import ArtefactError
from watchkeeper.tools.predictors.masks import mask
from watchkeeper.tools.predictors.templates import LEAF_LIMIT, TemplateMiner


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("2030-01-02 03:04:05,678 up at 03:04:05", "<time> up at <time>"),
        ("one\t17\t\ttwo", "one\t<n>\t\ttwo"),
        ("took 17 ms, 3.5%", "took <n> ms, <n>"),
        ("from 10.0.0.7:5432 and 10.0.0.0/8", "from <ip> and <ip>"),
        ("via fe80::1ff:fe23:4567:890a", "via <ip>"),
        ("at 0xdeadbeef and 3fa9c04d", "at <hex> and <hex>"),
        ("open /var/lib/x y.z", "open <path> y.z"),
        ("C:\\Temp\\a.txt gone", "<path> gone"),
        ("GET https://a.example/b?c=1 done", "GET <url> done"),
        ("to a.b@example.org now", "to <mail> now"),
        ("2030-01-02T03:04:05.678Z up", "<time> up"),
        ("Jan  2 03:04:05 box: up", "<time> box: up"),
        ("[Sun Dec 04 04:47:44 2005] up", "[<time>] up"),
        ('"02/Jan/2030:03:04:05 +0000" up', '"<time>" up'),
        ("job 6ba7b810-9dad-11d1-80b4-00c04fd430c8", "job <id>"),
        ("part_0012345 lost", "<id> lost"),
        ("worker-12 of sshd[331]", "worker-<n> of sshd[<n>]"),
        ("ssh2, level3 and x86_64 stay", "ssh2, level3 and x86_64 stay"),
        ("nothing to replace", "nothing to replace"),
    ],
)
def test_values_are_replaced_by_what_they_are(text: str, masked: str) -> None:
    assert mask(text) == masked


def learn_all(miner: TemplateMiner, lines: list[str]) -> list[int]:
    return [miner.learn(line).id for line in lines]


def test_lines_that_differ_in_values_alone_have_one_template() -> None:
    miner = TemplateMiner()
    numbers = learn_all(miner, [f"worker {i} took {i * 7} ms for /srv/{i}/x" for i in range(50)])
    assert set(numbers) == {0}
    (template,) = miner.templates
    assert template.text == "worker <n> took <n> ms for <path>"
    assert template.count == 50


def test_a_word_in_which_lines_differ_becomes_open() -> None:
    miner = TemplateMiner()
    learn_all(miner, ["session opened for user anna by root", "session opened for user ben by root"])
    assert [template.text for template in miner.templates] == ["session opened for user <*> by root"]


def test_numbers_make_lines_of_different_kinds_no_more_alike() -> None:
    miner = TemplateMiner()
    first = miner.learn("read 1 2 3 4 5 6 blocks lost")
    second = miner.learn("read 1 2 3 4 5 6 pages kept")
    assert first.id != second.id


def test_matching_teaches_nothing() -> None:
    miner = TemplateMiner()
    miner.learn("link eth0 is down now")
    before = miner.to_json()
    assert miner.match("link eth1 is down now") is not None
    assert miner.match("quite another thing happened here") is None
    assert miner.to_json() == before


def test_memory_stays_bounded_whatever_comes_in() -> None:
    chance = random.Random(3)
    miner = TemplateMiner(limit=40, children=5)
    for _ in range(3000):
        words = ["".join(chance.choices("abcdefgh", k=6)) for _ in range(chance.randint(1, 12))]
        miner.learn(" ".join(words))
        assert len(miner.templates) <= 40
    state = miner.to_json()
    assert len(miner._places) == len(miner.templates)
    assert sum(len(leaf) for leaf in miner._leaves.values()) == len(miner.templates)
    assert len(miner._below) <= 40 * 3
    assert len(json.dumps(state)) < 40 * 1000


def test_a_line_is_compared_with_a_bounded_number_of_templates() -> None:
    miner = TemplateMiner()
    for i in range(2 * LEAF_LIMIT):
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(i))
        miner.learn(f"same start {letters} {letters}x {letters}y {letters}z")
    assert max(len(leaf) for leaf in miner._leaves.values()) == LEAF_LIMIT


def test_what_was_not_seen_for_the_longest_time_is_forgotten() -> None:
    miner = TemplateMiner(limit=2)
    kept = miner.learn("alpha starts well")
    gone = miner.learn("beta goes on slowly today")
    miner.learn("alpha starts well")
    new = miner.learn("gamma")
    assert [template.id for template in miner.templates] == [kept.id, new.id]
    assert miner.learn("beta goes on slowly today").id not in (gone.id, kept.id, new.id)


def test_a_very_long_line_is_looked_at_in_part() -> None:
    template = TemplateMiner().learn("word " * 1_000_000)
    assert len(template.words) <= 200


LINES = st.lists(
    st.lists(st.sampled_from(["up", "down", "link", "eth0", "7", "10.0.0.1", "/a/b", "=x"]), max_size=6),
    max_size=60,
).map(lambda lines: [" ".join(words) for words in lines])


@given(LINES, st.integers(0, 60))
def test_a_miner_that_was_written_down_goes_on_as_if_it_had_not_been(lines: list[str], cut: int) -> None:
    whole, first = TemplateMiner(limit=8, children=3), TemplateMiner(limit=8, children=3)
    expected = learn_all(whole, lines)
    learn_all(first, lines[:cut])
    second = TemplateMiner.from_json(json.loads(json.dumps(first.to_json())))
    assert learn_all(second, lines[cut:]) == expected[cut:]
    assert second.to_json() == whole.to_json()


def test_damaged_templates_are_refused_with_the_place() -> None:
    state = TemplateMiner().to_json()
    with pytest.raises(ArtefactError, match=r"templates of log lines are damaged: depth: Field required"):
        TemplateMiner.from_json({key: value for key, value in state.items() if key != "depth"})
