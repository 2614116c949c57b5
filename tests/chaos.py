"""Commands killed at random moments, and many at once: nothing may be lost, and the next command must work.

CHAOS is the number of rounds, CHAOS_SEED makes a run repeatable.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .history import Event, violations
from .interruptions import ended, healthy, typed
from .stacks import LONG, Stack

ROUNDS = int(os.environ.get("CHAOS") or 3)
SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
NAMES = ("airflow", "dagster", "prefect")


def random_kills(stack: Stack, reference: object) -> None:
    """kill -9 of a command at a random moment: at most one orchestrator runs, the next command works, and the data is unchanged."""
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
        # The next `up` works and completes what the killed command left.
        active = stack.status()["orchestrator"]
        stack.invoke("up", "--orch", active or name)
        assert healthy(stack) == (active or name)
        assert stack.orchestrators() == {active or name}
        assert stack.hashes() == reference
    stack.invoke("down")
    assert stack.leftovers() == []
    print(f"CHAOS: {ROUNDS} kills ({dict(tried)}), {ROUNDS} recovered, 0 lost")


def many_ups(stack: Stack, reference: object) -> None:
    """Of many `up` at once with random orchestrators, one decides which starts; those with the same one succeed, the others are refused."""
    dice = random.Random(SEED)
    stack.invoke("down")
    names = [dice.choice(NAMES) for _ in range(20 if LONG else 6)]
    commands = [(name, typed(stack, "up", "--orch", name)) for name in names]
    codes = [(name, ended(command)[0]) for name, command in commands]
    active = healthy(stack)
    assert codes == [(name, 0 if name == active else 4) for name in names]
    assert stack.orchestrators() == {active}
    assert stack.hashes() == reference


def many_switches(stack: Stack, reference: object) -> None:
    """Switches in a row, each followed by a run, leave the marts unchanged and nothing behind."""
    dice = random.Random(SEED)
    for _ in range(max(1, ROUNDS // 2)):
        active = stack.status()["orchestrator"]
        name = dice.choice([name for name in NAMES if name != active])
        stack.on(name)
        stack.invoke("run")
        assert stack.orchestrators() == {name}
        assert stack.hashes() == reference
    stack.invoke("down")
    assert stack.leftovers() == []


def many_people(stack: Stack, reference: object) -> None:
    """Four people use one stack, one of them changes it, and a sixth of all commands is killed: the history violates no claim."""
    print(f"CHAOS_SEED={SEED}")
    began = time.monotonic()
    until = began + 20 * ROUNDS

    def change(dice: random.Random) -> tuple[str, ...]:
        name = dice.choice(NAMES)
        return dice.choice([("up", "--orch", name), ("switch", name), ("switch", name), ("switch", name, "--force"), ("down",)])

    def save(dice: random.Random) -> tuple[str, ...]:
        return "backup", "--file", f"backups/chaos-{dice.randrange(10**9)}.dump"

    def person(choose: Callable[[random.Random], tuple[str, ...]], number: int) -> list[Event]:
        dice, history = random.Random(SEED + number), []
        while time.monotonic() < until:
            words = choose(dice)
            start = time.monotonic() - began
            command = typed(stack, *words)
            if killed := dice.random() < 1 / 6:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    command.wait(dice.uniform(0.2, 12))
                command.kill()
            printed, _ = command.communicate(timeout=600)
            status = json.loads(printed) if words[0] == "status" and not killed and command.returncode == 0 else {}
            history.append(Event(start, time.monotonic() - began, words, command.returncode, printed, status))
            time.sleep(dice.uniform(0, 2))  # a person thinks
        return history

    stack.on("dagster")
    (stack.folder / "backups").mkdir(mode=0o700, exist_ok=True)
    with ThreadPoolExecutor() as people:
        histories = people.map(person, (change, lambda _: ("run",), save, lambda _: ("status", "--json")), range(4))
        history = [event for one in histories for event in one]
    stack.invoke("up", "--orch", stack.status()["orchestrator"] or "dagster")
    for place, event in enumerate(history):
        if event.verb == "backup" and event.code == 0:
            done = stack.invoke("restore", event.words[-1], "--yes", code=None)
            history[place] = replace(event, readable=done.returncode == 0)
    print("\n".join(map(str, sorted(history, key=lambda event: event.began))))
    found = violations(history)
    assert not found, "\n".join(found)
    stack.invoke("run")
    assert stack.hashes() == reference
    stack.invoke("down")
    assert stack.leftovers() == []
