"""The budget for the bytes of request bodies: its size, and the share of each initiator."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_aibridge.errors import GatewayError
from fastapi_aibridge.exchange.body_budget import BodyBudget, Holding, usable_memory

GIB = 1024**3


def fill(budget: BodyBudget, initiator: str, piece: int = 1) -> int:
    """Hold as many bytes as one initiator may have, and return the number."""
    held = 0
    while budget.has_room(initiator, piece):
        budget.holding(initiator).grow(piece)
        held += piece
    return held


def test_nobody_gets_all() -> None:
    """Each initiator may hold half of the memory that the others leave, in any number of requests."""
    budget = BodyBudget(1000)
    assert [fill(budget, name) for name in ("alice", "bob", "carol")] == [500, 250, 125]
    with pytest.raises(GatewayError) as refused:
        budget.holding("alice").grow(1)
    assert (refused.value.status, refused.value.code) == (503, "out_of_memory")
    assert refused.value.headers["retry-after"] == "1"


def test_what_is_released_is_free_again() -> None:
    """Released memory is free again, and initiators without memory are forgotten."""
    budget = BodyBudget(1000)
    for number in range(1000):
        holding = budget.holding(f"user-{number}")
        holding.grow(400)
        holding.shrink(100)
        assert budget.used == holding.size == 300
        holding.release()
        holding.release()
    assert (budget.used, budget._held) == (0, {})


def test_an_edited_copy_counts_beside_the_clients_own() -> None:
    """An edited copy counts beside the client's body, each object once; without room nothing more is held."""
    budget = BodyBudget(1000)
    holding = budget.holding("alice")
    body, edited = b"x" * 200, b"x" * 210
    holding.grow(len(body))
    holding.hold(body, body)
    assert holding.size == 200
    holding.hold(body, edited, body)
    assert budget.used == holding.size == 410
    with pytest.raises(GatewayError):
        holding.hold(body, edited, b"x" * 300)
    assert budget.used == 410
    holding.hold(body)
    assert budget.used == 200
    holding.release()
    assert budget.used == 0


def test_the_capacity_can_change() -> None:
    """A smaller capacity refuses new bytes and keeps those already held."""
    budget = BodyBudget(1000)
    holding = budget.holding("alice")
    holding.grow(400)
    budget.apply(500)
    with pytest.raises(GatewayError):
        budget.holding("bob").grow(60)
    budget.holding("bob").grow(50)
    assert (budget.used, holding.limit) == (450, 250)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 400), st.booleans())))
def test_any_order(steps: list[tuple[str, int, bool]]) -> None:
    """The capacity is never exceeded, and an initiator without memory always has room."""
    budget = BodyBudget(1000)
    held: list[Holding] = []
    for name, size, release in steps:
        if release and held:
            held.pop().release()
        elif budget.has_room(name, size):
            held.append(budget.holding(name))
            held[-1].grow(size)
        assert budget.used == sum(one.size for one in held) < 1000
        assert budget.has_room("newcomer", (1000 - budget.used) // 2)


def test_a_quarter_of_the_memory_is_the_default() -> None:
    """The default is a quarter of the memory that the process may use."""
    assert BodyBudget().capacity == usable_memory() // 4 > 0


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": f"MemTotal: {8 * 1024 * 1024} kB\nMemFree: 1 kB\n"}


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"}, GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 8 * GIB),
        (
            {
                "proc/self/cgroup": "0::/app/web\n",
                "sys/fs/cgroup/app/web/memory.max": "max\n",
                "sys/fs/cgroup/app/memory.max": f"{2 * GIB}\n",
            },
            2 * GIB,
        ),
        ({"proc/self/cgroup": "0::/../outside\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"}, GIB),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
            },
            3 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            8 * GIB,
        ),
        ({"proc/self/cgroup": "nonsense\n"}, 8 * GIB),
    ],
)
def test_control_groups(tmp_path: Path, files: dict[str, str], limit: int) -> None:
    """The limits of control groups 1 and 2 apply, inside a container or not; unreadable ones are ignored."""
    assert usable_memory(tree(tmp_path, {**MACHINE, **files})) == limit
