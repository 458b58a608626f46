"""What processes of a launch tell each other: `python launched.py FOLDER` writes FOLDER/RANK.json in each of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def together() -> dict[str, Any]:
    """Everybody comes: waiting, sums, and the first goes first."""
    from t2ialign.engine.launch import Launch

    found: dict[str, Any] = {}
    with Launch() as launch:
        if launch.rank:
            time.sleep(0.3)
        launch.wait()
        found["total"] = launch.total(launch.rank + 1)
        with Launch() as inner:
            found["inner"] = inner.total(10)
        begun = time.monotonic()
        with launch.first_goes_first():
            found["waited"] = time.monotonic() - begun
            time.sleep(0.3)
        found["stop"] = launch()
    return found


def one_fails() -> dict[str, Any]:
    """The last one fails in what lies within; the others wait for it there, and one of them fails too, later."""
    from t2ialign.engine.launch import Launch
    from t2ialign.errors import DataError

    begun = time.monotonic()
    try:
        with Launch() as launch:
            last = launch.rank == launch.count - 1
            if last:
                raise DataError("a picture is broken")
            with Launch() as inner:
                inner.wait()
    except Exception as error:
        return {"error": type(error).__name__, "said": str(error), "seconds": time.monotonic() - begun}
    return {}


def one_is_told() -> dict[str, Any]:
    """The last one gets a signal; the first one waits for it through the stop, then everybody stops."""
    from t2ialign.engine.launch import Launch
    from t2ialign.errors import Stopped

    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    found: dict[str, Any] = {}
    try:
        with Launch() as launch:
            if launch.rank == launch.count - 1:
                os.kill(os.getpid(), signal.SIGUSR1)
                found["knows"] = launch()
                time.sleep(0.5)
            else:
                with suppress(Stopped):  # what the one that was told leaves out
                    launch.wait()
            found["agreed"] = launch.total(int(launch.rank == 1), through_stop=True)
            launch.wait(through_stop=True)
            found["heard"] = launch.received is not None
            begun = time.monotonic()
            while time.monotonic() - begun < 20:
                launch.check()
                time.sleep(0.01)
    except Stopped as stop:
        found["exit_code"] = stop.exit_code
    return found


def main(folder: str) -> None:
    found = [together(), one_fails(), one_is_told()]
    (Path(folder) / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
