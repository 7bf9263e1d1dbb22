"""The emulator as a process of its own, which ends when its standard input does."""

from __future__ import annotations

import sys

from oss_emulator.server import Emulator
from oss_emulator.signing import Key
from oss_emulator.storage import Bucket

with Emulator(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as emulator:
    emulator.keys["emulator-key"] = Key("emulator-secret")
    emulator.buckets["artifacts"] = Bucket()
    print(emulator.url, emulator.region, "emulator-key", "emulator-secret", "artifacts", flush=True)
    sys.stdin.read()
