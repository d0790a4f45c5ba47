"""`POST /negatives`: the story of one request."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from core.errors import MalformedError, NotReadyError, TooLargeError
from service import codecs, params
from service.auth import ANONYMOUS, Gate
from service.cache import Laws
from service.codecs import JSON, OCTET_STREAM, SAFETENSORS, Inputs
from service.engine import Engine
from service.job import Job, Result
from service.limits import declared_length, read_body
from service.metrics import Metrics
from service.offer import Offer
from service.params import Params
from service.rate import RateLimit
from service.registry import Models
from service.settings import Settings
from service.shelf import LoadedModel
from service.stream import PairStream

Stages = dict[str, tuple[float, float]]  # of an answer: began and ended, on `time.monotonic`
JSON_BYTES_PER_NUMBER = 20  # a float32 in decimal, with its comma, takes at most about 15


@dataclass(frozen=True)
class Service:
    """What a running application consists of.

    Attributes:
        laws: the cache of laws.
        gate: who may come in.
        rate: how much each may ask for.
        stream: copies what is asked for trainers to learn from; None: nothing is copied.
        codec: one thread for the format that takes time per number, JSON.
    """

    settings: Settings
    models: Models
    engine: Engine
    metrics: Metrics
    laws: Laws
    gate: Gate
    rate: RateLimit
    stream: PairStream | None
    codec: ThreadPoolExecutor

    def check_ready(self) -> None:
        """What `GET /readyz` says.

        Raises:
            NotReadyError: nothing is live yet, or nothing can be computed any more.
        """
        self.engine.check_accepting()
        reason = self.models.why_not_ready()
        if reason is not None:
            raise NotReadyError(reason, retry_after=self.settings.registry.poll_seconds)

    def is_ready(self) -> bool:
        """The same as a number for Prometheus."""
        try:
            self.check_ready()
        except NotReadyError:
            return False
        return True


async def answer(service: Service, request: Request) -> Response:
    """From a request to its negatives.

    Raises:
        RequestError, UnavailableError: see `core.errors`; the caller can mend it, or wait.
        ClientDisconnect: nobody is left to answer.
    """
    arrived = time.monotonic()
    loop, limits = asyncio.get_running_loop(), service.settings.server

    # Before the body is read: everything that can be refused without it.
    query = params.from_query(request.query_params.multi_items())
    media = codecs.media_type(request.headers)
    out = codecs.negotiate(request.headers.get("accept", ""), media)
    deadline = _deadline(request.headers, arrived)
    size = declared_length(request.headers) or 0
    _check_json_size(media, size, limits.max_json_bytes)
    caller = _caller(request)
    service.engine.check_room(caller, 1, size, deadline)

    # The body, in one buffer; then its arrays and the one version that answers.
    body = await read_body(request, limits.body_timeout_seconds)
    received = time.monotonic()
    _check_json_size(media, len(body), limits.max_json_bytes)
    arrays: codecs.Arrays = {}
    fields: dict[str, object] = {}
    if media == JSON:
        arrays, fields = await loop.run_in_executor(
            service.codec, codecs.from_json, body, limits.max_json_rows
        )
    elif media == SAFETENSORS:
        arrays = codecs.from_safetensors(body)
    asked = params.combine(query, params.from_json(fields), limits.max_n)
    model = await service.models.resolve(asked.model, asked.version)
    if media == OCTET_STREAM:
        arrays = codecs.from_octet_stream(body, model.sampler.dim)
    body_size = len(body)
    del body  # what the arrays are views of stays; JSON's text goes

    # Into the queue, through the model thread, unless the caller hangs up meanwhile.
    job = _job(service, asked, model, arrays, body_size, out, caller, deadline)
    request.state.rows = job.inputs.rows
    await service.rate.take(request.state.caller.name, job.inputs.rows)
    accepted = time.monotonic()
    result = await _unless_hung_up(request, service.engine.submit(job))
    sampled = time.monotonic()

    # The answer, and what Prometheus is told.
    told = {"model": model.name, "version": model.version, "seed": job.seed}
    encode = partial(codecs.encode, out, result.tensors, told)
    response = await loop.run_in_executor(service.codec, encode) if out == JSON else encode()
    response.headers["X-Model"] = model.name
    response.headers["X-Model-Version"] = model.version
    response.headers["X-Seed"] = str(job.seed)
    turn = accepted + result.queue_seconds
    stages = {
        "decode": (received, accepted),
        "queue": (accepted, turn),
        "sample": (turn, turn + result.sample_seconds),
        "encode": (sampled, time.monotonic()),
    }
    request.state.stages = stages
    response.headers["Server-Timing"] = _server_timing(stages)
    _count(service.metrics, model, job, result, stages)
    if service.stream is not None:
        service.stream.offer(model, job.inputs)
    return response


def _job(
    service: Service,
    asked: Params,
    model: LoadedModel,
    arrays: codecs.Arrays,
    body_size: int,
    out: str,
    caller: str,
    deadline: float | None,
) -> Job:
    """Everything about a request, resolved and checked."""
    limits, sampler, offer = service.settings.server, model.sampler, model.offer
    inputs = codecs.checked(arrays, offer, limits.max_rows)
    rule = offer.rule(asked, has_threshold=inputs.threshold is not None)
    wanted = codecs.wanted(asked.returns, out, asked.dtype)
    answer_size = _answer_size(inputs, asked, offer, wanted, out)
    if answer_size > limits.max_response_bytes:
        or_the_law = ", or for returns=distribution and draw from it" if offer.law else ""
        raise TooLargeError(
            f"the answer to {inputs.rows} rows with n = {asked.n} would take about {answer_size} "
            f"bytes, at most {limits.max_response_bytes}: ask for fewer rows or a smaller n"
            f"{or_the_law}"
        )
    return Job(
        sampler=sampler,
        inputs=inputs,
        params=asked,
        rule=rule,
        seed=params.fresh_seed() if asked.seed is None else asked.seed,
        wanted=wanted,
        size=body_size + answer_size,
        caller=caller,
        deadline=deadline,
        observe=partial(
            service.metrics.transition_step.observe, model.name, num_steps=sampler.num_steps
        ),
        law=service.laws.of(model, seeded=asked.seed is not None),
    )


def _answer_size(
    inputs: Inputs, asked: Params, offer: Offer, wanted: tuple[str, ...], out: str
) -> int:
    """Bytes of the answer's numbers, about, and of the negatives that those are made from."""
    weights = 0 if offer.law else 1  # of each negative, where they may differ
    per_row = {
        "negatives": asked.n * (offer.dim + weights),
        "transition": 2,  # int64 has the size of two floats
        "distribution": 2 * offer.dim,
        "scores": asked.n,
        "items": 2 * asked.n,
    }
    numbers = inputs.rows * sum(per_row[name] for name in set(wanted))
    size = numbers * (JSON_BYTES_PER_NUMBER if out == JSON else asked.torch_dtype.itemsize)
    if {"scores", "items"} & set(wanted) and "negatives" not in wanted:
        size += inputs.rows * per_row["negatives"] * torch.float32.itemsize
    return size


def _check_json_size(media: str, size: int, most: int) -> None:
    if media == JSON and size > most:
        raise TooLargeError(
            f"a JSON body of {size} bytes; at most {most}: split the batch, or send "
            f"{OCTET_STREAM} or {SAFETENSORS}, which are smaller and faster"
        )


def _caller(request: Request) -> str:
    """Whose share of the queue a request counts against: its key's, or else its host's."""
    if request.state.caller != ANONYMOUS:
        return f"key {request.state.caller.name}"
    return request.client.host if request.client else ""


def _deadline(headers: Headers, arrived: float) -> float | None:
    """The time of `X-Request-Timeout-Ms` on the clock of `time.monotonic`."""
    given = headers.get("x-request-timeout-ms")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and int(given[:12])):
        raise MalformedError("X-Request-Timeout-Ms must be a whole number of milliseconds above 0")
    return arrived + int(given[:12]) / 1000


async def _unless_hung_up(request: Request, future: asyncio.Future[Result]) -> Result:
    """The job's result; cancels it when the caller hangs up first."""
    listening = asyncio.create_task(_hang_up(request))
    try:
        waiting: set[asyncio.Future[Any]] = {future, listening}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise ClientDisconnect
        return future.result()
    finally:
        future.cancel()  # has no effect where it is done
        listening.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _count(metrics: Metrics, model: LoadedModel, job: Job, result: Result, stages: Stages) -> None:
    for stage, (began, ended) in stages.items():
        metrics.stage_seconds[stage].observe(ended - began)
    inputs = job.inputs
    metrics.score_gap.observe(model.name, inputs.users, inputs.positives, result.tensors)
    if "negatives" in result.tensors:
        metrics.negatives.labels(model.name).inc(job.inputs.rows * job.params.n)


def _server_timing(stages: Stages) -> str:
    """Milliseconds by stage."""
    return ", ".join(
        f"{name};dur={1000 * (ended - began):.3f}" for name, (began, ended) in stages.items()
    )
