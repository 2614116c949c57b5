"""Commands killed at random moments, and many at once: nothing may be lost, and the next command must work.

CHAOS is the number of rounds, CHAOS_SEED makes a run repeatable.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections import Counter

from .interruptions import ended, healthy, typed
from .stacks import Stack

ROUNDS = int(os.environ.get("CHAOS") or 3)
SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
NAMES = ("airflow", "dagster", "prefect")


def random_kills(stack: Stack, reference: object) -> None:
    """kill -9 of a command at a random moment: at most one orchestrator is there, the next command works, the data is the same."""
    dice = random.Random(SEED)
    tried = Counter()
    for _ in range(ROUNDS):
        name = dice.choice(NAMES)
        active = stack.status()["orchestrator"]
        command = dice.choice(
            [["up", "--orch", active or name], ["down"], ["switch", name] if active else ["up", "--orch", name], ["backup"]]
        )
        tried[command[0]] += 1
        print(f"CHAOS_SEED={SEED}: kill of invoke {' '.join(command)}")
        victim = typed(stack, *command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            victim.wait(dice.uniform(0.2, 12))
        victim.kill()
        victim.communicate()
        assert len(stack.orchestrators()) <= 1
        # The next command, whatever it is, works; it may be a switch back to what was there.
        active = stack.status()["orchestrator"]
        stack.invoke("up", "--orch", active or name)
        assert healthy(stack) == (active or name)
        assert stack.orchestrators() == {active or name}
        assert stack.hashes() == reference
    stack.invoke("down")
    assert stack.leftovers() == []
    print(f"CHAOS: {ROUNDS} kills ({dict(tried)}), {ROUNDS} recovered, 0 lost")


def many_ups(stack: Stack, reference: object) -> None:
    """Of many `up` of random orchestrators at once, one decides which it is, and the others start it or are refused."""
    dice = random.Random(SEED)
    stack.invoke("down")
    names = [dice.choice(NAMES) for _ in range(20 if "CHAOS" in os.environ else 6)]
    commands = [(name, typed(stack, "up", "--orch", name)) for name in names]
    codes = [(name, ended(command)[0]) for name, command in commands]
    active = healthy(stack)
    assert codes == [(name, 0 if name == active else 4) for name in names]
    assert stack.orchestrators() == {active}
    assert stack.hashes() == reference


def many_switches(stack: Stack, reference: object) -> None:
    """Switches in a row, each with a run, leave the marts as they were, and nothing behind."""
    dice = random.Random(SEED)
    for _ in range(ROUNDS // 2):
        active = stack.status()["orchestrator"]
        name = dice.choice([name for name in NAMES if name != active])
        stack.on(name)
        stack.invoke("run")
        assert stack.orchestrators() == {name}
        assert stack.hashes() == reference
    stack.invoke("down")
    assert stack.leftovers() == []
