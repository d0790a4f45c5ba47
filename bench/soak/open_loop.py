"""Load that does not wait: requests leave when they are due, whatever became of those before.

A closed loop slows down with the service and so never overloads it. Here each request is sent at
its time over a connection of its own, idle or new, and its fate is noted. It runs in a process of
its own, so that whoever watches is not held up.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import uvloop

from bench.serving.load import END, Answer, Request

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Shot:
    """What became of one request.

    Attributes:
        due: seconds after the start at which it had to leave.
        lag: seconds by which it left late.
        seconds: from leaving to the last byte of the answer.
        status: of the answer; 0 where there was none.
        code: of the problem, where it is one.
        retry_after: seconds, where the answer says so.
        trouble: why there was no answer.
    """

    due: float
    lag: float
    seconds: float
    status: int
    code: str = ""
    retry_after: float | None = None
    trouble: str = ""


def fire(
    port: int, request: Request, dues: Sequence[float], patience: float
) -> tuple[list[Shot], float]:
    """Send a request at each of these times, from another process.

    Args:
        port: of the service.
        request: sent each time.
        dues: seconds after the start, ascending.
        patience: seconds after which an answer is taken to be lost.

    Returns:
        What became of each, and when the last one left, on `time.monotonic`'s clock.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        return other.submit(_fire, port, request, list(dues), patience).result()


def _fire(
    port: int, request: Request, dues: list[float], patience: float
) -> tuple[list[Shot], float]:
    return uvloop.run(_all(port, request, dues, patience))


async def _all(
    port: int, request: Request, dues: list[float], patience: float
) -> tuple[list[Shot], float]:
    idle: deque[Connection] = deque()
    begin, shots = asyncio.get_running_loop().time() + 0.1, []
    async with asyncio.TaskGroup() as group:
        for due in dues:
            await asyncio.sleep(begin + due - asyncio.get_running_loop().time())
            shots.append(group.create_task(_shoot(port, request, idle, begin, due, patience)))
        ended = time.monotonic()
    for _, writer in idle:
        writer.close()
    return [shot.result() for shot in shots], ended


async def _shoot(
    port: int, request: Request, idle: deque[Connection], begin: float, due: float, patience: float
) -> Shot:
    clock = asyncio.get_running_loop().time
    left = clock()
    try:
        async with asyncio.timeout(patience):
            if not idle:
                idle.append(await asyncio.open_connection("127.0.0.1", port))
            reader, writer = idle.pop()
            writer.writelines([request.head, request.body])
            answer = Answer((await reader.readuntil(END)).removesuffix(END), memoryview(b""))
            body = await reader.readexactly(int(answer.header("content-length") or 0))
    except TimeoutError:
        return Shot(due, left - begin - due, clock() - left, 0, trouble=f"none in {patience:g} s")
    except (OSError, asyncio.IncompleteReadError) as error:
        return Shot(due, left - begin - due, clock() - left, 0, trouble=repr(error))
    if (answer.header("connection") or "") == "close":
        writer.close()
    else:
        idle.append((reader, writer))
    problem = "problem+json" in (answer.header("content-type") or "")
    after = answer.header("retry-after")
    return Shot(
        due,
        lag=left - begin - due,
        seconds=clock() - left,
        status=answer.status,
        code=json.loads(body)["code"] if problem else "",
        retry_after=None if after is None else float(after),
    )
