"""Names of injected tools, tested by their properties."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge.mcp.naming import Names

WORDS = st.text(alphabet="ab_-", min_size=1, max_size=6)
ANYTHING = st.one_of(WORDS, st.text(max_size=80))
PAIRS = st.lists(st.tuples(ANYTHING, ANYTHING), max_size=12, unique=True)


@given(PAIRS)
def test_names_are_what_every_api_takes(pairs: list[tuple[str, str]]) -> None:
    """A name has letters, digits, underscores and hyphens, and at most 64 characters."""
    names = Names(server for server, _ in pairs)
    for server, tool in pairs:
        assert re.fullmatch(r"bmcp_[a-zA-Z0-9_-]{0,59}", names.name(server, tool))


@given(PAIRS)
def test_no_two_tools_share_a_name(pairs: list[tuple[str, str]]) -> None:
    """Tools with different servers or names have different injected names."""
    names = Names(server for server, _ in pairs)
    assert len({names.name(server, tool) for server, tool in pairs}) == len(pairs)


@given(st.sets(WORDS), WORDS, WORDS, st.randoms())
def test_names_do_not_depend_on_the_tools_that_happen_to_be_there(
    servers: set[str], server: str, tool: str, random: object
) -> None:
    """The same servers give the same names, in any order and in another process."""
    there = sorted(servers | {server})
    assert Names(there).name(server, tool) == Names(reversed(there)).name(server, tool)


def test_plain_names_stay_plain() -> None:
    """A name that fits consists of the server's and the tool's name."""
    names = Names(["coder", "my_server"])
    assert names.name("coder", "coder_list_workspaces") == "bmcp_coder_coder_list_workspaces"
    assert names.name("my_server", "get-sum") == "bmcp_my_server_get-sum"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b_c"), ("a_b", "c")),
        (("a", "x" * 80), ("a", "x" * 81)),
        (("a", "x.y"), ("a", "x_y")),
        (("a", "x.y"), ("a", "x/y")),
        (("a", "é"), ("a", "è")),
    ],
)
def test_what_would_collide_is_told_apart(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Names that would become equal by cutting, replacing or joining stay different."""
    names = Names(["a", "a_b"])
    assert names.name(*one) != names.name(*other)


def test_a_tool_cannot_take_the_name_of_a_hashed_one() -> None:
    """A tool that is named like another tool's hashed name is hashed itself."""
    names = Names(["a", "a_b"])
    hashed = names.name("a_b", "c")
    assert names.name("a", hashed.removeprefix("bmcp_a_")) != hashed


def test_names_are_stable_across_versions() -> None:
    """These names must never change, because a change breaks prompt caches and stored conversations."""
    assert Names(["files"]).name("files", "read.file") == "bmcp_files_read_file_41a584ce30a5"
